"""Equal numbers or weights of training examples for each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from edgetune.data.draw import repeat_to
from edgetune.data.example import Example
from edgetune.errors import DataError


def balance(
    examples: Sequence[Example], labels: Sequence[str], how: Literal["undersample", "oversample"], seed: int
) -> list[Example]:
    """As many examples of each label as the rarest or the most frequent one has, drawn with `seed`, in their order.

    Raises DataError if a label has no example.
    """
    counts = count_labels(examples, labels, field="data.balance")
    wanted = min(counts.values()) if how == "undersample" else max(counts.values())
    places: list[int] = []
    for label in labels:
        having = [place for place, example in enumerate(examples) if example.label == label]
        places += [having[number] for number in repeat_to(len(having), wanted, f"{seed} balance {label}")]
    return [examples[place] for place in sorted(places)]


def class_weights(examples: Sequence[Example], labels: Sequence[str]) -> dict[str, float]:
    """The weight of each label: w_c = N / (C · n_c), for n_c of N examples with one of C labels.

    The sum of all weights is N, and all labels have the same share. Raises DataError if a label has no example.
    """
    counts = count_labels(examples, labels, field="train.class_weights")
    total = sum(counts.values())
    return {label: total / (len(labels) * count) for label, count in counts.items()}


def weigh(examples: Sequence[Example], weights: dict[str, float]) -> list[Example]:
    """The examples with their label's weight."""
    return [replace(example, weight=weights[example.label or ""]) for example in examples]


def count_labels(examples: Sequence[Example], labels: Sequence[str], *, field: str) -> dict[str, int]:
    """The number of training examples of each label. Raises DataError, naming `field`, if one has none."""
    counts = Counter(example.label for example in examples)
    missing = [label for label in labels if not counts[label]]
    if missing:
        raise DataError(
            f"no training example has the label {missing[0]}",
            where=field,
            remedy="add examples of it, remove it from data.labels, or set this to none",
        )
    return {label: counts[label] for label in labels}
