"""Evaluation rows that the model has, exactly or nearly, seen in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.data.example import Example
from edgetune.data.identity import Keyed
from edgetune.data.near_duplicates import find_near_duplicates

SHOWN = 5
"""Of each kind, so many pairs are named."""
_EXCERPT = 80


@dataclass(frozen=True)
class Leak:
    """An evaluation row and a training row that ask the same, by file and line, with the beginning of the text.

    `similarity` is the Jaccard similarity of their pairs of neighbouring words; 1.0 for what is the same but for case,
    punctuation and spaces.
    """

    evaluation: str
    train: str
    similarity: float
    text: str


@dataclass(frozen=True)
class Overlap:
    """How many evaluation rows ask exactly or nearly what a training row asks, and the first few of each kind."""

    exact: int
    near: int
    shown: tuple[Leak, ...]


def find_overlap(train: Sequence[Keyed], evaluation: Sequence[Keyed]) -> Overlap:
    """Compare what the rows ask, apart from the prompt's own words; empty ones ask nothing.

    Near-duplicates have a Jaccard similarity of at least `near_duplicates.THRESHOLD`.
    """
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
