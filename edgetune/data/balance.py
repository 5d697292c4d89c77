"""As many training examples of one label as of any other."""

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
    """As many examples of each label as the rarest or the commonest has, drawn with `seed`, in their order.

    Raises DataError when a label has no example.
    """
    counts = count_labels(examples, labels, field="data.balance")
    wanted = min(counts.values()) if how == "undersample" else max(counts.values())
    places: list[int] = []
    for label in labels:
        having = [place for place, example in enumerate(examples) if example.label == label]
        places += [having[number] for number in repeat_to(len(having), wanted, f"{seed} balance {label}")]
    return [examples[place] for place in sorted(places)]


def class_weights(examples: Sequence[Example], labels: Sequence[str]) -> dict[str, float]:
    """What an example of each label counts: w_c = N / (C · n_c), for n_c of N examples with one of C labels.

    All examples together weigh as much as without weights, and each label as much as any other. Raises DataError when a
    label has no example.
    """
    counts = count_labels(examples, labels, field="train.class_weights")
    total = sum(counts.values())
    return {label: total / (len(labels) * count) for label, count in counts.items()}


def weigh(examples: Sequence[Example], weights: dict[str, float]) -> list[Example]:
    """The examples with their label's weight, which tokenizing hands on."""
    return [replace(example, weight=weights[example.label or ""]) for example in examples]


def count_labels(examples: Sequence[Example], labels: Sequence[str], *, field: str) -> dict[str, int]:
    """How many training examples each label has. Raises DataError, naming the field that asks, when one has none."""
    counts = Counter(example.label for example in examples)
    missing = [label for label in labels if not counts[label]]
    if missing:
        raise DataError(
            f"no training example has the label {missing[0]}, and so nothing can stand for it",
            where=field,
            remedy="add examples of it, take it out of data.labels, or set this to none",
        )
    return {label: counts[label] for label in labels}
