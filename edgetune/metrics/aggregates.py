"""A metric over all items as a function of how often each item counts. All weights are (b, n), results (b,).

n counts all items of the suite, also those without a value, which add nothing. A resample of only such items is nan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Aggregate = Callable[[Floats], Floats]
"""How often each item counts, (b, n) -> the metric's value of each of the b resamples, (b,)."""


@dataclass(frozen=True)
class SumMetric:
    """An aggregate that needs nothing of the items but sums over them: F1 the counts of each label, a mean two sums.

    Item i adds the numbers `rows[kinds[i]]`; kinds (n,), rows (k, c). `combine` makes the metric of such sums, (b, c)
    -> (b,). All items of one kind count alike, so it is enough to know how many of each kind were drawn.
    """

    kinds: NDArray[np.intp]
    rows: Floats
    combine: Callable[[Floats], Floats]

    def __call__(self, weights: Floats) -> Floats:
        """How often each item counts, (b, n) -> the metric's values, (b,)."""
        kinds = self.rows.shape[0]
        if kinds >= self.kinds.size:
            return self.combine(weights @ self.rows[self.kinds])
        by_kind = [np.bincount(self.kinds, weights=counts, minlength=kinds) for counts in weights]
        return self.combine(np.array(by_kind).reshape(-1, kinds) @ self.rows)


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
        f1 = divided(2 * both, support + guessed)
        if not weighted:
            return f1.mean(axis=1)
        with np.errstate(invalid="ignore"):
            return (f1 * support).sum(axis=1) / support.sum(axis=1)

    return of_label_counts(gold, predicted, labels, combine)


def precision_over_labels(gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> SumMetric:
    """Plain mean of the labels' precisions, 0 for a label that no answer names."""
    return of_label_counts(gold, predicted, labels, lambda _, guessed, both: divided(both, guessed).mean(axis=1))


def recall_over_labels(gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> SumMetric:
    """Plain mean of the labels' recalls, 0 for a label that no item has."""
    return of_label_counts(gold, predicted, labels, lambda support, _, both: divided(both, support).mean(axis=1))


def divided(numerators: NDArray, denominators: NDArray) -> Floats:
    """Quotients; 0 where the denominator is 0."""
    return np.divide(numerators, denominators, out=np.zeros(denominators.shape), where=denominators > 0)


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
