"""Evaluation rows that are, exactly or nearly, in the training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.data.example import Example
from edgetune.data.identity import Keyed
from edgetune.data.near_duplicates import find_near_duplicates

SHOWN = 5
"""Number of pairs of each kind that are listed."""
_EXCERPT = 80


@dataclass(frozen=True)
class Leak:
    """An evaluation row and a training row that ask the same, by file and line, with the beginning of the text.

    `similarity` is the Jaccard similarity of their pairs of neighbouring words; 1.0 if they differ only in case,
    punctuation and spaces.
    """

    evaluation: str
    train: str
    similarity: float
    text: str


@dataclass(frozen=True)
class Overlap:
    """The number of evaluation rows that ask exactly or nearly the same as a training row, and the first few."""

    exact: int
    near: int
    shown: tuple[Leak, ...]


def find_overlap(train: Sequence[Keyed], evaluation: Sequence[Keyed]) -> Overlap:
    """Compare the rows' questions, without the prompt's own words; empty ones are ignored."""
    known: dict[str, Example] = {}
    for key, row in train:
        known.setdefault(key, row)
    known.pop("", None)
    exact = [_leak(row, known[key], 1.0) for key, row in evaluation if key in known]
    others = [(key, row) for key, row in evaluation if key and key not in known]
    rows = list(known.values())
    near = [
        _leak(others[pair.new][1], rows[pair.known], round(pair.similarity, 3))
        for pair in find_near_duplicates(list(known), [key for key, _ in others])
    ]
    return Overlap(len(exact), len(near), (*exact[:SHOWN], *near[:SHOWN]))


def _leak(row: Example, seen: Example, similarity: float) -> Leak:
    text = " ".join(row.content.split())
    return Leak(row.where, seen.where, similarity, text if len(text) <= _EXCERPT else f"{text[: _EXCERPT - 1]}…")
