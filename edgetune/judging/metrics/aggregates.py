"""A metric over all items as a function of how often each item counts. All weights are (b, n), results (b,).

n counts all items of the suite, also those without a value, which add nothing. A resample of only such items is nan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgetune.errors import DataError
from edgetune.judging.metrics.metric import MetricResult
from edgetune.judging.statistics.quantity import Aggregate, SumMetric

Floats = NDArray[np.float64]


def mean_metric(values: Sequence[float | None], lacking: str) -> MetricResult:
    """The mean over the items that have a value. Raises DataError, saying what is `lacking`, where none has."""
    present = np.array([value is not None for value in values], dtype=np.float64)
    if not present.any():
        raise DataError(lacking)
    aggregate = ratio(np.array([value or 0.0 for value in values], dtype=np.float64), present)
    return MetricResult(value_of(aggregate, len(values)), tuple(values), aggregate)


def ratio(numerators: Floats, denominators: Floats) -> SumMetric:
    """Sum over sum, (n,) each: a mean where the denominators are 1."""
    rows, kinds = np.unique(np.column_stack([numerators, denominators]), axis=0, return_inverse=True)

    def combine(sums: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return sums[:, 0] / sums[:, 1]

    return SumMetric(kinds.reshape(-1), rows, combine)


def f1_over_labels(
    gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str], *, weighted: bool
) -> SumMetric:
    """Mean of the labels' F1: plain (macro) or, when `weighted`, by how many items have the label.

    As in scikit-learn with zero_division=0: a label that neither gold nor prediction names counts as 0. A prediction
    of None, or of what is no label, is of no label.
    """

    def combine(support: Floats, guessed: Floats, both: Floats) -> Floats:
        named = support + guessed
        f1 = np.divide(2 * both, named, out=np.zeros_like(named), where=named > 0)
        if not weighted:
            return f1.mean(axis=1)
        with np.errstate(invalid="ignore"):
            return (f1 * support).sum(axis=1) / support.sum(axis=1)

    return of_label_counts(gold, predicted, labels, combine)


def recall_over_labels(gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> SumMetric:
    """Plain mean of the labels' recalls, as in scikit-learn with zero_division=0: 0 for a label that no item has."""

    def combine(support: Floats, guessed: Floats, both: Floats) -> Floats:
        return np.divide(both, support, out=np.zeros_like(support), where=support > 0).mean(axis=1)

    return of_label_counts(gold, predicted, labels, combine)


def of_label_counts(
    gold: Sequence[str],
    predicted: Sequence[str | None],
    labels: Sequence[str],
    combine: Callable[[Floats, Floats, Floats], Floats],
) -> SumMetric:
    """A metric that `combine` makes of how many items have each label, are given it, and both: (b, l) each -> (b,)."""
    number: dict[str | None, int] = {label: place for place, label in enumerate(labels)}
    none = len(labels)
    true, given = (np.array([number.get(name, none) for name in names]) for names in (gold, predicted))
    cells, kinds = np.unique(true * (none + 1) + given, return_inverse=True)
    marks = np.eye(none + 1)[:, :none]
    has, gets = marks[cells // (none + 1)], marks[cells % (none + 1)]
    rows = np.hstack([has, gets, has * gets])
    return SumMetric(kinds.reshape(-1), rows, lambda sums: combine(*np.split(sums, 3, axis=1)))


def value_of(aggregate: Aggregate, items: int) -> float:
    """The metric when each item counts once."""
    return float(aggregate(np.ones((1, items)))[0])
