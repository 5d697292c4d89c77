"""Rows of one side that are empty, that repeat each other, or that contradict each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgetune.data.example import Example
from edgetune.data.identity import Keyed

SHOWN = 5
"""Number of findings that are listed."""


@dataclass(frozen=True)
class Finding:
    """The number of findings, and the first few by file and line."""

    count: int
    shown: tuple[str, ...]


def find_empty(rows: Sequence[Keyed]) -> Finding:
    """Rows without a question or an answer (a tool call is an answer)."""
    return _finding(row.where for _, row in rows if row.is_empty)


def find_duplicates(rows: Sequence[Keyed]) -> Finding:
    """Rows that ask the same as an earlier one, without empty rows."""
    return _finding(f"{row.where} is {group[0].where}{_label(row)}" for group in _same(rows) for row in group[1:])


def find_conflicts(rows: Sequence[Keyed]) -> Finding:
    """Texts with different labels in different rows."""
    groups = [_first_of_each_label(group) for group in _same(rows)]
    return _finding(", ".join(f"{row.where}{_label(row)}" for row in group) for group in groups if len(group) > 1)


def _same(rows: Sequence[Keyed]) -> Iterable[list[Example]]:
    groups: dict[str, list[Example]] = {}
    for key, row in rows:
        groups.setdefault(key, []).append(row)
    return (group for key, group in groups.items() if key)


def _first_of_each_label(group: Sequence[Example]) -> list[Example]:
    first: dict[str | None, Example] = {}
    for row in group:
        first.setdefault(row.label, row)
    return list(first.values())


def _label(row: Example) -> str:
    return "" if row.label is None else f" ({row.label})"


def _finding(found: Iterable[str]) -> Finding:
    each = list(found)
    return Finding(len(each), tuple(each[:SHOWN]))
