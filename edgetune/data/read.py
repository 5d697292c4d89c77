"""Data files and hub data sets -> rows with their file and line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgetune.data.split import slice_split
from edgetune.data.table_file import NumberedRecord, read_csv, read_tsv
from edgetune.data.text_file import check_file, read_text
from edgetune.errors import DataError, MissingComponent, first_line_of
from edgetune.keys import SIGN_IN, find_hub_token
from edgetune.recipe.data import SPREADSHEET_SUFFIXES, DataSource

_INSTALL = 'pip install "edgetune[train]"'

_PATIENCE_SECONDS = 10.0
"""Timeout of the request that checks whether the hub can be reached."""


@dataclass(frozen=True)
class Row:
    """One record: its values by column name, and its place (`file.jsonl:12`)."""

    where: str
    values: dict[str, Any]


def read_rows(source: DataSource) -> list[Row]:
    """The rows of a data file, a local folder or a hub data set, after the slice of `source.split`.

    Text files are UTF-8, and only "\\n" ends their lines, because texts may contain Unicode's other line separators. A
    .json file is a list of objects, or one object whose values are the objects. For .csv and .tsv see `table_file`. The
    datasets library reads folders and hub ids.

    Raises DataError naming the file and line, or the hub id, MissingComponent if a library is missing, and UsageError
    if a hub data set needs .env and it cannot be read.
    """
    path = Path(source.source)
    read = _READERS.get(path.suffix.lower())
    if read is not None:
        rows = slice_split(list(read(path)), source.split, where=source.source)
    elif path.suffix.lower() in SPREADSHEET_SUFFIXES:
        raise DataError(
            f"edgetune cannot read spreadsheets ({path.suffix})",
            where=path,
            remedy="save the sheet as CSV UTF-8 in its program (File, Save As), and use the .csv file as the source",
        )
    elif path.is_file():
        kind = f"files of kind {path.suffix}" if path.suffix else "files without a suffix"
        raise DataError(f"{kind} cannot be read; known are {_known_suffixes()}", where=path)
    else:
        rows = list(_read_data_set(source))
    if not rows:
        raise DataError(f"there are no rows in split {source.split}", where=source.source)
    return rows


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield _object_row(_parse_json(line, path, first_line=number), where=f"{path}:{number}")


def _read_json(path: Path) -> Iterator[Row]:
    value = _parse_json(read_text(path), path)
    if isinstance(value, list):
        for number, item in enumerate(value, start=1):
            yield _object_row(item, where=f"{path}: item {number}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield _object_row(item, where=f"{path}: key {key}")
    else:
        raise DataError("must contain a list of objects, or one object whose values are objects", where=path)


def _read_table(read: Callable[[Path], Iterator[NumberedRecord]], path: Path) -> Iterator[Row]:
    for line, values in read(path):
        yield Row(f"{path}:{line}", values)


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingComponent("reading parquet files needs pyarrow", where=path, remedy=_INSTALL) from None
    check_file(path)
    try:
        records = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as problem:
        raise DataError(f"cannot be read as parquet ({first_line_of(problem)})", where=path) from None
    for number, values in enumerate(records, start=1):
        yield Row(f"{path}: row {number}", _without_fillers(values))


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": partial(_read_table, read_csv),
    ".tsv": partial(_read_table, read_tsv),
    ".parquet": _read_parquet,
}


def _read_data_set(source: DataSource) -> Iterator[Row]:
    try:
        import datasets
    except ImportError:
        raise MissingComponent(
            "is not a data file here, and reading hub data sets needs the datasets library",
            where=source.source,
            remedy=_INSTALL,
        ) from None
    split = f"train{source.split}" if source.split.startswith("[") else source.split
    token = None if Path(source.source).is_dir() else find_hub_token()
    try:
        with _without_retries(source.source, token):
            table = datasets.load_dataset(source.source, source.subset, split=split, token=token)
    except (FileNotFoundError, ConnectionError) as problem:
        raise DataError(
            f"there is no such file or folder here, and no hub data set of this name can be reached "
            f"({first_line_of(problem)})",
            where=source.source,
            remedy=f"check the name and the network, or give a folder or a file ({_known_suffixes()}); for a "
            f"private or gated data set, {SIGN_IN}",
        ) from None
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as problem:
        raise DataError(
            f"split {split} of this data set cannot be read ({first_line_of(problem)})", where=source.source
        ) from None
    for number, values in enumerate(table, start=1):
        yield Row(f"{source.source} {split}: row {number}", _without_fillers(values))


def _without_fillers(values: dict[str, Any]) -> dict[str, Any]:
    """A row of Arrow without filler nulls: in a list of objects, Arrow gives each object the keys of all others."""
    return {
        name: [_only_given(item, keep="content") for item in value] if isinstance(value, list) else value
        for name, value in values.items()
    }


def _only_given(value: Any, keep: str | None = None) -> Any:
    if isinstance(value, dict):
        return {name: _only_given(inner) for name, inner in value.items() if inner is not None or name == keep}
    return [_only_given(item) for item in value] if isinstance(value, list) else value


@contextmanager
def _without_retries(hub_id: str, token: str | None) -> Iterator[None]:
    """Ask the hub once; if it cannot be reached, use only earlier downloads.

    Otherwise its libraries retry for half a minute and print each attempt.
    """
    import httpx
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    offline = constants.HF_HUB_OFFLINE
    try:
        if not Path(hub_id).is_dir():
            HfApi(token=token).dataset_info(hub_id, timeout=_PATIENCE_SECONDS)
    except (HfHubHTTPError, HFValidationError):
        pass  # load_dataset says it better
    except (httpx.TransportError, OfflineModeIsEnabled):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _parse_json(text: str, path: Path, first_line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise DataError(
            f"is not valid JSON ({problem.msg}, column {problem.colno})",
            where=f"{path}:{first_line + problem.lineno - 1}",
        ) from None
    except (ValueError, RecursionError) as problem:  # a number of too many digits, objects nested too deeply
        raise DataError(f"is not valid JSON ({first_line_of(problem)})", where=f"{path}:{first_line}") from None


def _object_row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        shown = json.dumps(value, ensure_ascii=False)
        raise DataError(f"a row must be a JSON object, not {shown[:40]}", where=where)
    return Row(where, value)


def _known_suffixes() -> str:
    return ", ".join(_READERS)
