"""Rows by file and line, the first few of many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

NAMED = 5
"""Number of rows that are named."""


def name_places(places: Sequence[str], count: int | None = None) -> str:
    """The first few of `count` places, without folders: `a.csv:3, a.csv:9, … and 12 more`."""
    named = [Path(place).name for place in places[:NAMED]]
    more = (len(places) if count is None else count) - len(named)
    return ", ".join([*named, *([f"… and {more} more"] if more > 0 else [])])
