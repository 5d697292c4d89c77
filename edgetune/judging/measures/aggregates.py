"""A metric over all items as a function of how often each item counts. All weights are (b, n), results (b,).

n counts all items of the suite, also those without a value, which add nothing. A resample of only such items is nan.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgetune.errors import DataError
from edgetune.judging.comparison import Aggregate
from edgetune.judging.measures.measure import Measurement

Floats = NDArray[np.float64]


def measure_mean(values: Sequence[float | None], lacking: str) -> Measurement:
    """The mean over the items that have a value. Raises DataError, saying what is `lacking`, where none has."""
    present = np.array([value is not None for value in values], dtype=np.float64)
    if not present.any():
        raise DataError(lacking)
    aggregate = ratio(np.array([value or 0.0 for value in values], dtype=np.float64), present)
    return Measurement(value_of(aggregate, len(values)), tuple(values), aggregate)


def ratio(numerators: Floats, denominators: Floats) -> Aggregate:
    """Sum over sum, (n,) each: a mean where the denominators are 1."""

    def aggregate(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return (weights @ numerators) / (weights @ denominators)

    return aggregate


def f1_over_labels(
    gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str], *, weighted: bool
) -> Aggregate:
    """Mean of the labels' F1: plain (macro) or, when `weighted`, by how many items have the label.

    As in scikit-learn with zero_division=0: a label that neither gold nor prediction names counts as 0. A prediction
    of None, or of what is no label, is of no label.
    """
    true, guessed = _one_hot(gold, labels), _one_hot(predicted, labels)
    both = true * guessed

    def aggregate(weights: Floats) -> Floats:
        support = weights @ true
        named = support + weights @ guessed
        f1 = np.divide(2 * (weights @ both), named, out=np.zeros_like(named), where=named > 0)
        if not weighted:
            return f1.mean(axis=1)
        with np.errstate(invalid="ignore"):
            return (f1 * support).sum(axis=1) / support.sum(axis=1)

    return aggregate


def recall_over_labels(gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> Aggregate:
    """Plain mean of the labels' recalls, as in scikit-learn with zero_division=0: 0 for a label that no item has."""
    true = _one_hot(gold, labels)
    found = true * _one_hot(predicted, labels)

    def aggregate(weights: Floats) -> Floats:
        support = weights @ true
        return np.divide(weights @ found, support, out=np.zeros_like(support), where=support > 0).mean(axis=1)

    return aggregate


def value_of(aggregate: Aggregate, items: int) -> float:
    """The metric when each item counts once."""
    return float(aggregate(np.ones((1, items)))[0])


def _one_hot(names: Sequence[str | None], labels: Sequence[str]) -> Floats:
    """(n, k), 1 where the item's name is the label."""
    return np.array([[name == label for label in labels] for name in names], dtype=np.float64)
