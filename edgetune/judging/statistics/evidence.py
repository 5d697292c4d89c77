"""One pairing of two models -> what its numbers say: the difference, its interval, its p-value, and its noise.

Which method fits is decided by the kind and the unit of the metric alone, before anything is known of the values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetune.judging.statistics.accuracy import adjusted_difference, count_pairs, mcnemar_mid_p
from edgetune.judging.statistics.bootstrap import (
    RESAMPLES,
    Bootstrap,
    bootstrap_interval,
    bootstrap_p,
    differing_units,
)
from edgetune.judging.statistics.bounded import bounded_interval
from edgetune.judging.statistics.clusters import cluster_sums, drop_rounding, number_clusters
from edgetune.judging.statistics.intervals import Interval, hull
from edgetune.judging.statistics.quantity import Difference, Pairing
from edgetune.judging.statistics.scores import mean_with_error, t_interval, too_few_differ
from edgetune.judging.statistics.sign_flip import sign_flip_p
from edgetune.judging.statistics.sums import resample_together
from edgetune.metrics.units import SCALES, Unit, scale_length

_RESAMPLES_OF_A_DIFFERENCE = 2_000
"""Where only an interval is wanted, and no verdict rests on it."""


@dataclass(frozen=True)
class Evidence:
    """What the gate decides by, and what it plans with. All differences are candidate - baseline in the metric's unit.

    `units` counts what is independent: the items, or their clusters. `standard_error` is the difference's, with
    `degrees` of freedom (None: normal). `step` is the size of one item's loss where too few items
    differ for their noise to be known, and 0 elsewhere. `expected` is the difference that is to be expected of other
    items, and `expected_error` its standard error.
    """

    candidate: float
    baseline: float
    difference: float
    interval: Interval
    p_value: float
    test: str
    interval_method: str
    units: int
    standard_error: float
    degrees: float | None
    step: float
    expected: float
    expected_error: float
    equal: bool
    gained: int | None = None
    lost: int | None = None


def weigh(pairing: Pairing, confidence: float) -> Evidence:
    """Compare the two sides of a pairing by the method of its kind.

    accuracy: McNemar's mid-p value. score: the sign-flip test. Both: the interval of a bounded mean, or Student's where
    the unit has no ends. aggregate: the paired bootstrap. With clusters: sign flips of whole clusters, and intervals
    and a bootstrap that draw whole clusters. Raises ValueError for fewer than 2 items or clusters, for values that are
    not finite, and for a pairing without what its kind needs.
    """
    _check(pairing)
    if pairing.kind == "aggregate":
        return _weigh_aggregates(pairing, confidence)
    candidate, baseline = _values_of(pairing)
    if pairing.kind == "score":
        return _weigh_scores(pairing, candidate, baseline, confidence)
    return _weigh_accuracies(pairing, candidate, baseline, confidence)


def measure_difference(pairing: Pairing, confidence: float) -> Difference:
    """The difference of the two sides with its interval, as `weigh` gives them, and no test. Raises as `weigh` does."""
    _check(pairing)
    if pairing.kind == "aggregate":
        candidate, baseline = _resampled(pairing, _RESAMPLES_OF_A_DIFFERENCE)
        difference = candidate.minus(baseline)
        interval = interval_of_aggregates(pairing, candidate, baseline, difference, confidence)
        return Difference(pairing.metric, pairing.items, difference.value, interval, _method(pairing))
    ours, theirs = _values_of(pairing)
    differences = drop_rounding(ours - theirs)
    interval = _interval_of_means(pairing, differences, _step(pairing.unit, ours, theirs), confidence)
    return Difference(pairing.metric, pairing.items, float(differences.mean()), interval, _method(pairing))


def _check(pairing: Pairing) -> None:
    what = "items" if pairing.clusters is None else "clusters"
    if pairing.items < 2 or (pairing.clusters is not None and len(set(pairing.clusters)) < 2):
        raise ValueError(f"a comparison needs at least 2 {what}")


def _values_of(pairing: Pairing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if pairing.candidate is None or pairing.baseline is None:
        raise ValueError(f"{pairing.metric}: a comparison of the kind {pairing.kind} needs values by item")
    candidate, baseline = np.asarray(pairing.candidate, float), np.asarray(pairing.baseline, float)
    if candidate.shape != (pairing.items,) or baseline.shape != (pairing.items,):
        raise ValueError(f"{pairing.metric}: {candidate.size} and {baseline.size} values for {pairing.items} items")
    if not (np.isfinite(candidate).all() and np.isfinite(baseline).all()):
        raise ValueError(f"{pairing.metric}: a value is not finite")
    return candidate, baseline


def _weigh_accuracies(
    pairing: Pairing, candidate: NDArray[np.float64], baseline: NDArray[np.float64], confidence: float
) -> Evidence:
    if not (np.isin(candidate, (0, 1)).all() and np.isin(baseline, (0, 1)).all()):
        raise ValueError("an accuracy's values are 0 (wrong) or 1 (right)")
    clusters, counts = pairing.clusters, count_pairs((candidate == 1).tolist(), (baseline == 1).tolist())
    expected, expected_error = adjusted_difference(counts)
    differences = candidate - baseline
    standard_error, step = math.sqrt(counts.gained + counts.lost) / counts.items, 1.0
    units = counts.items
    degrees: float | None = None
    if clusters is None:
        p_value, test = mcnemar_mid_p(counts.gained, counts.lost), "McNemar's test, mid-p"
    else:
        sums = cluster_sums(differences, number_clusters(clusters, counts.items))
        p_value, test = sign_flip_p(sums, mid=True), "sign-flip test of clusters, mid-p"
        robust = mean_with_error(differences, clusters)
        units, degrees = robust.units, robust.degrees
        standard_error = max(standard_error, robust.standard_error)
        expected_error = max(expected_error, robust.standard_error)
        step = 1.0 if too_few_differ(int(np.count_nonzero(sums)), 1 - confidence) else 0.0

    return Evidence(
        candidate=float(candidate.mean()),
        baseline=float(baseline.mean()),
        difference=counts.difference,
        interval=_interval_of_means(pairing, differences, step, confidence),
        p_value=p_value,
        test=test,
        interval_method=_method(pairing),
        units=units,
        standard_error=standard_error,
        degrees=degrees,
        step=step,
        expected=expected,
        expected_error=expected_error,
        equal=counts.gained == counts.lost == 0,
        gained=counts.gained,
        lost=counts.lost,
    )


def _weigh_scores(
    pairing: Pairing, candidate: NDArray[np.float64], baseline: NDArray[np.float64], confidence: float
) -> Evidence:
    differences, clusters = drop_rounding(candidate - baseline), pairing.clusters
    mean = mean_with_error(differences, clusters)
    step = max(_step(pairing.unit, candidate, baseline), float(np.abs(differences).max()))
    sums = cluster_sums(differences, number_clusters(clusters, pairing.items))
    few = too_few_differ(int(np.count_nonzero(sums)), 1 - confidence)

    return Evidence(
        candidate=float(candidate.mean()),
        baseline=float(baseline.mean()),
        difference=mean.value,
        interval=_interval_of_means(pairing, differences, step, confidence),
        p_value=sign_flip_p(sums),
        test="sign-flip test" if clusters is None else "sign-flip test of clusters",
        interval_method=_method(pairing),
        units=mean.units,
        standard_error=mean.standard_error,
        degrees=mean.degrees,
        step=step if few else 0.0,
        expected=mean.value,
        expected_error=mean.standard_error,
        equal=bool((differences == 0).all()),
    )


def _weigh_aggregates(pairing: Pairing, confidence: float) -> Evidence:
    candidate, baseline = _resampled(pairing, RESAMPLES)
    difference = candidate.minus(baseline)
    step = _step(pairing.unit, candidate.influence, baseline.influence)
    units, few = difference.units, too_few_differ(sum(differing_units(difference)), 1 - confidence)

    return Evidence(
        candidate=candidate.value,
        baseline=baseline.value,
        difference=difference.value,
        interval=interval_of_aggregates(pairing, candidate, baseline, difference, confidence),
        p_value=bootstrap_p(difference),
        test="paired bootstrap" if pairing.clusters is None else "paired bootstrap of clusters",
        interval_method=_method(pairing),
        units=units,
        standard_error=difference.standard_error,
        degrees=units - 1,
        step=step if few else 0.0,
        expected=difference.value,
        expected_error=difference.standard_error,
        equal=difference.value == 0 and not difference.left_out.any(),
    )


def _resampled(pairing: Pairing, resamples: int) -> tuple[Bootstrap, Bootstrap]:
    if pairing.candidate_aggregate is None or pairing.baseline_aggregate is None:
        raise ValueError(f"{pairing.metric}: a comparison of the kind aggregate needs both aggregates")
    sides = (pairing.candidate_aggregate, pairing.baseline_aggregate)
    candidate, baseline = resample_together(sides, pairing.items, pairing.clusters, resamples=resamples)
    return candidate, baseline


def _interval_of_means(pairing: Pairing, differences: NDArray[np.float64], step: float, confidence: float) -> Interval:
    """Of a unit with ends the interval of a bounded mean. Of others Student's and, where too few items (or clusters)
    differ for their noise to be known, the interval of a mean between minus and plus `step` beside it."""
    reach, clusters = scale_length(pairing.unit), pairing.clusters
    if reach is not None:
        return bounded_interval(differences, -reach, reach, clusters, confidence)
    mean = mean_with_error(differences, clusters)
    student = t_interval(mean, confidence)
    sums = cluster_sums(differences, number_clusters(clusters, differences.size))
    if not too_few_differ(int(np.count_nonzero(sums)), 1 - confidence):
        return student
    return hull(student, bounded_interval(differences, -step, step, clusters, confidence))


def interval_of_aggregates(
    pairing: Pairing,
    candidate: Bootstrap,
    baseline: Bootstrap,
    difference: Bootstrap,
    confidence: float,
) -> Interval:
    """The bootstrap's interval, and beside it that of a bounded mean of the items' own differences: always where the
    unit has ends, elsewhere where too few items (or clusters) differ. An item that was not seen may move the metric as
    far as any that was, from the least to the largest influence on either side, and as far as its weight allows.
    """
    interval, reach = bootstrap_interval(difference, confidence), scale_length(pairing.unit)
    if reach is not None:
        ends = max(pairing.item_weight * reach, float(np.ptp(candidate.influence)), float(np.ptp(baseline.influence)))
        interval = hull(interval, bounded_interval(difference.own_values, -ends, ends, None, confidence))
        return Interval(max(-reach, interval.lower), min(reach, interval.upper), confidence)
    if not too_few_differ(sum(differing_units(difference)), 1 - confidence):
        return interval
    step = _step(pairing.unit, candidate.influence, baseline.influence)
    return hull(interval, bounded_interval(difference.own_values, -step, step, None, confidence))


def _method(pairing: Pairing) -> str:
    bounded = pairing.unit in SCALES
    if pairing.kind == "aggregate":
        method = "bootstrap and bounded mean" if bounded else "bootstrap"
    else:
        method = "bounded mean" if bounded else "Student's t"
    return method if pairing.clusters is None else f"{method} of clusters"


def _step(unit: Unit, candidate: NDArray[np.float64], baseline: NDArray[np.float64]) -> float:
    """How much an item loses that loses, as far as can be said where hardly an item did.

    A grade is a grade. Elsewhere two standard deviations of the values (of right or wrong answers, about the difference
    between the two); where all values are the same, all that the unit allows, or the value itself.
    """
    if unit == "grade":
        return 1.0
    values = np.concatenate([candidate, baseline])
    spread = 2 * float(values.std())
    return spread if spread > 0 else scale_length(unit) or max(1.0, float(np.abs(values).max()))
