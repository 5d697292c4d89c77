"""The slice in a split's name, such as "train[:1000]", applied to the rows of a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from edgetune.errors import DataError

Item = TypeVar("Item")

_SPLIT = re.compile(r"[^\[\]()+]*(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


def slice_split(items: Sequence[Item], split: str, *, where: str) -> list[Item]:
    """The items that `split` selects: all for "train", the first thousand for "train[:1000]" or "[:1000]".

    A file is one split, so the name before the bracket has no effect. Bounds follow `datasets.ReadInstruction`: a
    percent sign at one bound applies to both, percentages are rounded to the nearest item, and negative bounds count
    from the end. Raises DataError, naming `where`, for another form.
    """
    match = _SPLIT.fullmatch(split)
    if match is None:
        raise DataError(
            f"invalid split {split!r}",
            where=where,
            remedy='write it as "train", "train[:1000]" or "train[10%:20%]"',
        )
    bounds = (match["start"], match["stop"])
    percent = any(bound is not None and bound.endswith("%") for bound in bounds)
    start, stop = (_position(bound, percent, len(items)) for bound in bounds)
    return list(items[start:stop])


def _position(bound: str | None, percent: bool, count: int) -> int | None:
    if bound is None:
        return None
    number = int(bound.removesuffix("%"))
    return round(number * count / 100) if percent else number
