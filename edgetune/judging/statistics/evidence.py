"""One pairing of two models -> what its numbers say: the difference, its interval, its p-value, and its noise.

Which method fits is decided by the kind of the metric alone, before anything is known of the values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetune.judging.comparison import Pairing, Unit
from edgetune.judging.statistics.accuracy import (
    adjusted_difference,
    bonett_price_interval,
    clustered_interval,
    count_pairs,
    mcnemar_mid_p,
)
from edgetune.judging.statistics.bootstrap import bootstrap_p, cautious_interval, differing_units
from edgetune.judging.statistics.clusters import cluster_sums, drop_rounding, number_clusters
from edgetune.judging.statistics.intervals import Interval
from edgetune.judging.statistics.scores import difference_interval, measure_mean, too_few_differ
from edgetune.judging.statistics.sign_flip import sign_flip_p
from edgetune.judging.statistics.sums import resample_together

_WHOLE_RANGE: dict[Unit, float] = {"share": 1.0, "points": 100.0}


@dataclass(frozen=True)
class Evidence:
    """What the gate decides by, and what it plans with. All differences are candidate - baseline in the metric's unit.

    `units` counts what is independent: the items, or their clusters. `standard_error` is the difference's, with
    `degrees` of freedom (None: normal). `step` is the size of one item's loss where too few items differ for their
    noise to be known, and 0 elsewhere. `expected` is the difference that is to be expected of other items, and
    `expected_error` its standard error.
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
    degrees: int | None
    step: float
    expected: float
    expected_error: float
    equal: bool
    gained: int | None = None
    lost: int | None = None


def weigh(pairing: Pairing, confidence: float) -> Evidence:
    """Compare the two sides of a pairing by the method of its kind.

    accuracy: McNemar's mid-p value and the interval of Bonett and Price. score: the sign-flip test and Student's
    interval. aggregate: the paired bootstrap. With clusters: sign flips of whole clusters, cluster-robust intervals,
    and a bootstrap that draws whole clusters. Raises ValueError for fewer than 2 items or clusters, for values that are
    not finite, and for a pairing without what its kind needs.
    """
    what = "items" if pairing.clusters is None else "clusters"
    if pairing.items < 2 or (pairing.clusters is not None and len(set(pairing.clusters)) < 2):
        raise ValueError(f"a comparison needs at least 2 {what}")
    if pairing.kind == "aggregate":
        return _weigh_aggregates(pairing, confidence)
    if pairing.candidate is None or pairing.baseline is None:
        raise ValueError(f"{pairing.metric}: a comparison of the kind {pairing.kind} needs values by item")
    candidate, baseline = np.asarray(pairing.candidate, float), np.asarray(pairing.baseline, float)
    if candidate.shape != (pairing.items,) or baseline.shape != (pairing.items,):
        raise ValueError(f"{pairing.metric}: {candidate.size} and {baseline.size} values for {pairing.items} items")
    if not (np.isfinite(candidate).all() and np.isfinite(baseline).all()):
        raise ValueError(f"{pairing.metric}: a value is not finite")
    if pairing.kind == "score":
        return _weigh_scores(pairing, candidate, baseline, confidence)
    return _weigh_accuracies(candidate, baseline, pairing.clusters, confidence)


def _weigh_accuracies(
    candidate: NDArray[np.float64], baseline: NDArray[np.float64], clusters: Sequence[str] | None, confidence: float
) -> Evidence:
    if not (np.isin(candidate, (0, 1)).all() and np.isin(baseline, (0, 1)).all()):
        raise ValueError("an accuracy's values are 0 (wrong) or 1 (right)")
    counts = count_pairs((candidate == 1).tolist(), (baseline == 1).tolist())
    expected, expected_error = adjusted_difference(counts)
    differences = candidate - baseline
    standard_error, step = math.sqrt(counts.gained + counts.lost) / counts.items, 1.0
    if clusters is None:
        units, degrees = counts.items, None
        p_value = mcnemar_mid_p(counts.gained, counts.lost)
        interval, method = bonett_price_interval(counts, confidence), "Bonett and Price"
        test = "McNemar's test, mid-p"
    else:
        sums = cluster_sums(differences, number_clusters(clusters, counts.items))
        units, degrees = sums.size, sums.size - 1
        p_value = sign_flip_p(sums, mid=True)
        interval, method = clustered_interval(differences, clusters, confidence), "cluster-robust Bonett and Price"
        robust_error = measure_mean(differences, clusters).standard_error
        standard_error, expected_error = max(standard_error, robust_error), max(expected_error, robust_error)
        step = 1.0 if too_few_differ(int(np.count_nonzero(sums)), 1 - confidence) else 0.0
        test = "sign-flip test of clusters, mid-p"
    return Evidence(
        candidate=float(candidate.mean()),
        baseline=float(baseline.mean()),
        difference=counts.difference,
        interval=interval,
        p_value=p_value,
        test=test,
        interval_method=method,
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
    mean = measure_mean(differences, clusters)
    step = _step(pairing.unit, np.concatenate([candidate, baseline]))
    step = max(step, float(np.abs(differences).max()))
    sums = cluster_sums(differences, number_clusters(clusters, pairing.items))
    few = too_few_differ(int(np.count_nonzero(sums)), 1 - confidence)
    return Evidence(
        candidate=float(candidate.mean()),
        baseline=float(baseline.mean()),
        difference=mean.value,
        interval=difference_interval(differences, step, clusters, confidence),
        p_value=sign_flip_p(sums),
        test="sign-flip test" if clusters is None else "sign-flip test of clusters",
        interval_method="Student's t" if clusters is None else "cluster-robust Student's t",
        units=mean.units,
        standard_error=mean.standard_error,
        degrees=mean.units - 1,
        step=step if few else 0.0,
        expected=mean.value,
        expected_error=mean.standard_error,
        equal=bool((differences == 0).all()),
    )


def _weigh_aggregates(pairing: Pairing, confidence: float) -> Evidence:
    if pairing.candidate_aggregate is None or pairing.baseline_aggregate is None:
        raise ValueError(f"{pairing.metric}: a comparison of the kind aggregate needs both aggregates")
    sides = (pairing.candidate_aggregate, pairing.baseline_aggregate)
    candidate, baseline = resample_together(sides, pairing.items, pairing.clusters)
    difference = candidate.minus(baseline)
    step = _step(pairing.unit, np.concatenate([candidate.influence, baseline.influence]))
    units, few = difference.units, too_few_differ(sum(differing_units(difference)), 1 - confidence)
    return Evidence(
        candidate=candidate.value,
        baseline=baseline.value,
        difference=difference.value,
        interval=cautious_interval(difference, step, confidence),
        p_value=bootstrap_p(difference),
        test="paired bootstrap" if pairing.clusters is None else "paired bootstrap of clusters",
        interval_method="bootstrap" if pairing.clusters is None else "bootstrap of clusters",
        units=units,
        standard_error=difference.standard_error,
        degrees=units - 1,
        step=step if few else 0.0,
        expected=difference.value,
        expected_error=difference.standard_error,
        equal=difference.value == 0 and not difference.left_out.any(),
    )


def _step(unit: Unit, values: NDArray[np.float64]) -> float:
    """How much an item loses that loses, as far as can be said where hardly an item did.

    A grade is a grade. Elsewhere two standard deviations of the values (of right or wrong answers, about the difference
    between the two); where all values are the same, all that the unit allows, or the value itself.
    """
    if unit == "grade":
        return 1.0
    spread = 2 * float(values.std())
    return spread if spread > 0 else _WHOLE_RANGE.get(unit, max(1.0, float(np.abs(values).max())))
