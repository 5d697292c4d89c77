"""What is compared: one metric of two models on the same items, in the metric's unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetune.judging.statistics.intervals import Interval
from edgetune.metrics.aggregates import Aggregate
from edgetune.metrics.metric import Metric
from edgetune.metrics.units import Unit, ValueKind


@dataclass(frozen=True)
class ComparedMetric:
    """A metric of the task, a criterion of a rubric, or the judges' preference: what its values are, and how two models
    are compared by them.

    `margin` is the smallest loss that matters, None for a metric that no gate compares; `higher_is_better` is None
    where neither direction is better. `task_metric` computes a metric of the task; the others are a judge's.
    """

    name: str
    title: str
    kind: ValueKind
    unit: Unit
    higher_is_better: bool | None
    margin: float | None
    task_metric: Metric | None = None
    of_pairs: bool = False
    """True for the preference: only two answers together have a value. It is the candidate's; the baseline's is 0."""

    @property
    def is_judged(self) -> bool:
        """True for a metric that rests on a judge's verdicts."""
        return self.task_metric is None


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
