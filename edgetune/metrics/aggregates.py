"""A metric over all items as a function of how often each item counts. All weights are (b, n), results (b,).

n counts all items of the suite, also those without a value, which add nothing. A resample of only such items is nan.
"""

from __future__ import annotations

from collections.abc import Callable
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


def value_of(aggregate: Aggregate, items: int) -> float:
    """The metric when each item counts once."""
    return float(aggregate(np.ones((1, items)))[0])
