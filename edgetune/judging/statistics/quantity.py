"""What is compared: one metric of two models on the same items, in the metric's unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgetune.judging.statistics.intervals import Interval

ValueKind = Literal["accuracy", "score", "aggregate"]
"""accuracy: right or wrong by item. score: a number by item, whose mean counts. aggregate: a number over all items that
is no such mean, or whose items are far from normal (F1, ROUGE, perplexity)."""

Unit = Literal["share", "points", "grade", "log", "number"]
"""How values are written: share 0.02 is 2 points; points are already of 100 (ROUGE); grade is on the judge's scale; log
is the natural logarithm of what is shown (perplexity: a difference of 0.02 is 2 % more); number is as it is."""

SCALES: dict[Unit, tuple[float, float]] = {"share": (0.0, 1.0), "points": (0.0, 100.0), "grade": (1.0, 5.0)}
"""Both ends of the units that have ends. A difference of two values lies between minus and plus the distance of both;
preferences, whose baseline is 0, lie there too."""


def scale_length(unit: Unit) -> float | None:
    """How far apart two values of a unit can lie; None for a unit without ends."""
    return SCALES[unit][1] - SCALES[unit][0] if unit in SCALES else None


Aggregate = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""How often each item counts, (b, n) -> the metric's value of each of the b resamples, (b,)."""


@dataclass(frozen=True)
class SumMetric:
    """An aggregate that needs nothing of the items but sums over them: F1 the counts of each label, a mean two sums.

    Item i adds the numbers `rows[kinds[i]]`; kinds (n,), rows (k, c). `combine` makes the metric of such sums, (b, c)
    -> (b,). All items of one kind count alike, so it is enough to know how many of each kind were drawn.
    """

    kinds: NDArray[np.intp]
    rows: NDArray[np.float64]
    combine: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def __call__(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """How often each item counts, (b, n) -> the metric's values, (b,)."""
        kinds = self.rows.shape[0]
        if kinds >= self.kinds.size:
            return self.combine(weights @ self.rows[self.kinds])
        by_kind = [np.bincount(self.kinds, weights=counts, minlength=kinds) for counts in weights]
        return self.combine(np.array(by_kind).reshape(-1, kinds) @ self.rows)


@dataclass(frozen=True)
class Pairing:
    """One metric of candidate and baseline, in natural units. Items without a value on either side are left out.

    `candidate` and `baseline` are (n,) for the kinds accuracy (0 or 1) and score; `candidate_aggregate` and
    `baseline_aggregate` are there for the kind aggregate. `clusters` names each item's cluster where the suite has
    them. `margin` is the smallest loss that matters, in the metric's unit. `item_weight` says how many times its equal
    share one item can move an aggregate: an item of a rare label weighs much in macro-F1.
    """

    metric: str
    title: str
    kind: ValueKind
    unit: Unit
    higher_is_better: bool
    margin: float
    items: int
    candidate: NDArray[np.float64] | None = None
    baseline: NDArray[np.float64] | None = None
    candidate_aggregate: Aggregate | None = None
    baseline_aggregate: Aggregate | None = None
    clusters: tuple[str, ...] | None = None
    item_weight: float = 1.0


@dataclass(frozen=True)
class Difference:
    """Candidate - baseline of a metric that the gate does not compare, in the metric's unit, with its interval."""

    metric: str
    items: int
    difference: float
    interval: Interval
    interval_method: str
