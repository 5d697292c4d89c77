"""One metric of two models on the same items: what goes into the gate, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
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


class Outcome(StrEnum):
    """The answers of the gate."""

    PASS = "PASS"
    REGRESSION = "REGRESSION"
    INCONCLUSIVE = "INCONCLUSIVE"
    JUDGE_INVALID = "JUDGE INVALID"


@dataclass(frozen=True)
class Comparison:
    """What the gate makes of one pairing. `difference` and `interval` are candidate - baseline in the metric's unit.

    `p_value` is two-sided and for this metric alone; `adjusted_p` is after Holm's correction over all metrics of the
    gate. `test` and `interval_method` name the methods for people. `gained` and `lost` count the items that only the
    candidate, or only the baseline, gets right (kind accuracy). `smallest_visible_loss` is what this many items would
    show four times in five; `items_to_decide` about how many would decide (None: decided, or no number would).
    `smallest_margin` is the limit above which these items pass any margin. `unseen_share` is for judged criteria,
    preferences and other means on a scale: were a smaller share of all items (clusters) to fall from one end of the
    scale to the other, a set of so many would with a chance of `alpha` or more hold none of them.
    """

    metric: str
    title: str
    kind: ValueKind
    unit: Unit
    higher_is_better: bool
    outcome: Outcome
    items: int
    clusters: int | None
    candidate: float
    baseline: float
    difference: float
    interval: Interval
    p_value: float
    adjusted_p: float
    test: str
    interval_method: str
    margin: float
    alpha: float
    smallest_visible_loss: float
    items_to_decide: int | None
    gained: int | None = None
    lost: int | None = None
    equal: bool = False
    """True where both sides are the same on every item, and known to be the same model."""
    smallest_margin: float | None = None
    unseen_share: float | None = None


@dataclass(frozen=True)
class Difference:
    """Candidate - baseline of a metric that the gate does not compare, in the metric's unit, with its interval."""

    metric: str
    items: int
    difference: float
    interval: Interval
    interval_method: str
