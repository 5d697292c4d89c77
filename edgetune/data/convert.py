"""All rows of a source -> examples, with one message about all errors in them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.data.columns import column_names, find_column
from edgetune.data.conversation import Unread
from edgetune.data.example import Example
from edgetune.data.formats import FORMATS, column_of, to_example
from edgetune.data.labels import check_labels, find_label
from edgetune.data.places import name_places
from edgetune.data.prompt import TEXT
from edgetune.data.read import Row
from edgetune.errors import DataError
from edgetune.recipe.data import Data, DataSource
from edgetune.recipe.yaml_input import nearest

_LOOKED_AT = 200
"""Number of rows that are searched for the intended column."""


@dataclass(frozen=True)
class Converted:
    """The examples of a source, the rows that were left out, and what was not read.

    Left out are rows whose label maps to null, and rows in which every answer has weight 0.
    """

    examples: list[Example]
    left_out: tuple[str, ...]
    unread: Unread


def to_examples(rows: Sequence[Row], source: DataSource, data: Data) -> Converted:
    """Convert all rows of a source. Raises one DataError with the first error and the places of the others."""
    check_rows(rows, source, data)
    examples: list[Example] = []
    left_out: list[str] = []
    faults: list[DataError] = []
    unread: Unread = Counter()
    for row in rows:
        try:
            example = to_example(row, source, data, unread)
        except DataError as fault:
            faults.append(fault)
            continue
        if example is None or not example.teaches:
            left_out.append(row.where)
        else:
            examples.append(example)
    if faults:
        raise _joined(faults)
    return Converted(examples, tuple(left_out), unread)


def check_rows(rows: Sequence[Row], source: DataSource, data: Data) -> None:
    """Raise one DataError about all columns that no row has, or else about all unknown labels."""
    _check_columns(rows, source, data)
    _check_labels(rows, source, data)


def _check_columns(rows: Sequence[Row], source: DataSource, data: Data) -> None:
    """Columns that no row has; a column that only some rows lack is an error of those rows."""
    needed = [*FORMATS[source.format].columns, *(column for column in source.columns)]
    missing = [
        column for column in dict.fromkeys(needed)
        if not _values(rows[0], column, source) and not any(_values(row, column, source) for row in rows)
    ]  # fmt: skip
    if not missing:
        return
    dotted = any("." in source.columns.get(column, column) for column in missing)
    there = list(column_names(rows[0].values)) if dotted else list(rows[0].values)
    names = [source.columns.get(column, column) for column in missing]
    if len(names) == 1:
        what = f"there is no column {names[0]}{nearest(names[0], there)}"
    else:
        what = f"there are no columns {', '.join(name + nearest(name, there) for name in names)}"
    meant = {column: name for column, name in source.columns.items() if column not in missing}
    meant |= {column: _guess(column, rows, source, data) or "its name in the file" for column in missing}
    pasted = ", ".join(f"{column}: {_in_yaml(name)}" for column, name in meant.items())
    raise DataError(
        f"{what}; there are {', '.join(there) or 'none'}",
        where=rows[0].where if len(rows) == 1 else source.source,
        remedy=f"map {'it' if len(missing) == 1 else 'them'} in the source's columns, such as columns: {{{pasted}}}"
        + _further_fault(rows, source.model_copy(update={"columns": meant}), data),
    )


def _further_fault(rows: Sequence[Row], source: DataSource, data: Data) -> str:
    """The error in the labels after the columns are mapped, so that the user edits the recipe only once."""
    try:
        _check_labels(rows, source, data)
    except DataError as fault:
        return f". Then: {fault}"
    return ""


def _check_labels(rows: Sequence[Row], source: DataSource, data: Data) -> None:
    if "label" in FORMATS[source.format].columns:
        check_labels(((row.where, value) for row in rows for value in _values(row, "label", source)), source, data)


def _guess(column: str, rows: Sequence[Row], source: DataSource, data: Data) -> str | None:
    """The column that is probably intended: for the label the one with most known labels, for the text the longest."""
    looked_at = rows[:_LOOKED_AT]
    taken = set(source.columns.values())
    scores: dict[str, float] = {}
    for name in rows[0].values:
        if name in taken:
            continue
        values = [row.values.get(name) for row in looked_at]
        if column == "label":
            scores[name] = sum(_is_label(value, source, data) for value in values)
        elif column == TEXT:
            scores[name] = sum(len(value) for value in values if isinstance(value, str))
    best = max(scores, key=scores.__getitem__, default=None)
    return best if best is not None and scores[best] > 0 else None


def _in_yaml(name: str) -> str:
    """A column's name as YAML inside braces."""
    return (
        name if re.fullmatch(r"\w[\w .-]*", name) and not name[0].isdecimal() else json.dumps(name, ensure_ascii=False)
    )


def _is_label(value: object, source: DataSource, data: Data) -> bool:
    try:
        find_label(value, source, data, "")
    except DataError:
        return False
    return True


def _values(row: Row, column: str, source: DataSource) -> list[object]:
    """The value of a column, or an empty list if the row has no such column."""
    try:
        return [find_column(row.values, column_of(column, row.values, source))]
    except KeyError:
        return []


def _joined(faults: Sequence[DataError]) -> DataError:
    first, *others = faults
    if not others:
        return first
    rows = "row has a fault" if len(others) == 1 else "rows have faults"
    places = name_places([fault.where or "" for fault in others])
    return DataError(f"{first.what} ({len(others)} more {rows}: {places})", where=first.where, remedy=first.remedy)
