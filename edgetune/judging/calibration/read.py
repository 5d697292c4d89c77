"""A file or a folder of files with people's votes -> GoldSets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgetune.data.draw import apportion, draw
from edgetune.data.read import read_rows
from edgetune.errors import DataError
from edgetune.judging.calibration.formats import find_format
from edgetune.judging.calibration.gold import GoldSet
from edgetune.judging.suites.identity import hash_file
from edgetune.recipe.data import DATA_SUFFIXES, DataSource


def read_gold(path: Path, limit: int | None = None, seed: int = 0) -> tuple[GoldSet, ...]:
    """Read people's votes; each file is a set of its own, in the order of their names.

    `limit` draws so many items with a seed, from each file in proportion. Items without a majority are left out before.
    Raises DataError when there is no such file, when a file has none of the known shapes, or when pairs and grades are
    mixed.
    """
    if not path.exists():
        raise DataError("there is no such file or folder", where=path)
    files = [path] if path.is_file() else sorted(each for each in path.iterdir() if each.suffix in DATA_SUFFIXES)
    if not files:
        raise DataError(f"there is no file that ends in {', '.join(DATA_SUFFIXES)}", where=path)
    sets = [_read_file(file) for file in files]
    if len({each.kind for each in sets}) > 1:
        raise DataError("some files hold pairs and others grades", where=path, remedy="calibrate on one file at a time")
    return tuple(sets if limit is None else _draw(sets, limit, seed))


def _read_file(file: Path) -> GoldSet:
    rows = read_rows(DataSource(source=str(file), format="prompt-completion"))
    known = find_format(rows[0])
    for row in rows:
        missing = [column for column in known.columns if column not in row.values]
        if missing:
            raise DataError(f"column {missing[0]} is missing ({known.name} has it)", where=row.where)
    items = tuple(known.read(rows, file.name))
    decided = tuple(item for item in items if item.gold is not None)
    if not decided:
        raise DataError("there is no majority on any of these items", where=file)
    return GoldSet(file.name, known.name, hash_file(file), decided, len(items) - len(decided))


def _draw(sets: Sequence[GoldSet], limit: int, seed: int) -> list[GoldSet]:
    sizes = [len(each.items) for each in sets]
    counts = apportion(min(limit, sum(sizes)), sizes)
    drawn = []
    for each, count in zip(sets, counts, strict=True):
        numbers = draw(len(each.items), count, f"calibration {seed} {each.name}")
        drawn.append(replace(each, items=tuple(each.items[number] for number in numbers)))
    return [each for each in drawn if each.items]
