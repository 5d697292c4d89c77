"""The gate's results: its outcomes, and the comparison of one metric."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgetune.judging.statistics.intervals import Interval
from edgetune.metrics.units import Unit, ValueKind

ROUNDING = 1e-12
"""0.3 - 0.1 is not 0.2: a loss of exactly the margin is one of at least the margin."""


class Outcome(StrEnum):
    """The outcomes of the gate."""

    PASS = "PASS"
    REGRESSION = "REGRESSION"
    INCONCLUSIVE = "INCONCLUSIVE"
    JUDGE_INVALID = "JUDGE INVALID"


@dataclass(frozen=True)
class Comparison:
    """The gate's result on one pairing. `difference` and `interval` are candidate - baseline in the metric's unit.

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

    @property
    def loss(self) -> float:
        """How much worse the candidate is, in the metric's unit; negative for a gain."""
        return -self.difference if self.higher_is_better else self.difference
