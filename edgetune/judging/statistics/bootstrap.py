"""The bootstrap: intervals and tests for metrics that exist only over all items (F1, ROUGE, perplexity).

Items, or whole clusters of them, are drawn anew with replacement, and the metric is computed from how often each was
drawn. Candidate and baseline are computed from the same draws, so that what both find hard cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr

from edgetune.judging.statistics.clusters import drop_rounding, number_clusters
from edgetune.judging.statistics.intervals import Interval, hull
from edgetune.judging.statistics.scores import Mean, t_interval, t_quantile
from edgetune.metrics.aggregates import Aggregate

RESAMPLES = 10_000
WEIGHTS_AT_ONCE = 1_000_000
"""How many counts a chunk of resamples holds: 8 MB."""

_NO_INFLUENCE = 1e-9
"""Less than this is rounding."""

_POSITIVE = 1e-9


@dataclass(frozen=True)
class Bootstrap:
    """A metric and what resampling made of it.

    `value` is over all items, `resampled` (b,) of each resample, `left_out` (g,) without each item (or cluster).
    """

    value: float
    resampled: NDArray[np.float64]
    left_out: NDArray[np.float64]

    @property
    def units(self) -> int:
        """How many items (or clusters) were drawn from."""
        return self.left_out.size

    @property
    def standard_error(self) -> float:
        """The spread of the resamples times sqrt(g / (g - 1)), by which resamples of g units are too narrow."""
        return float(self.resampled.std()) * math.sqrt(self.units / (self.units - 1))

    def minus(self, other: Bootstrap) -> Bootstrap:
        """The difference of two metrics that were computed from the same draws."""
        value = drop_rounding(np.array([self.value - other.value]))
        resampled, left_out = self.resampled - other.resampled, self.left_out - other.left_out
        return Bootstrap(float(value[0]), drop_rounding(resampled), drop_rounding(left_out))

    @property
    def own_values(self) -> NDArray[np.float64]:
        """What the metric would be of each item (or cluster) alone, (g,), were it a mean: the jackknife's pseudo-values
        (Miller, 1974, Biometrika 61:1-15), which of a mean are the items' own values."""
        return self.value + self.influence

    @property
    def influence(self) -> NDArray[np.float64]:
        """How much each item (or cluster) moves the metric, (g,): of a mean, its own value less the mean."""
        return (self.units - 1) * (self.left_out.mean() - self.left_out)


def resample(
    aggregate: Aggregate,
    items: int,
    clusters: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """Compute a metric over all items, over `resamples` draws of them, and without each of them.

    Equal items, clusters and seed give equal draws. Raises ValueError for fewer than 2 items or clusters, and when the
    metric is not finite.
    """
    numbers = number_clusters(clusters, items)
    units = int(numbers.max(initial=-1)) + 1
    if units < 2:
        raise ValueError(f"a bootstrap needs at least 2 {'items' if clusters is None else 'clusters'}")
    value = aggregate(np.ones((1, items)))
    left_out = np.concatenate([aggregate(weights[:, numbers]) for weights in _leave_each_out(units)])
    drawn = np.concatenate([aggregate(weights[:, numbers]) for weights in draw_units(units, resamples, seed)])
    if not (np.isfinite(value).all() and np.isfinite(left_out).all() and np.isfinite(drawn).all()):
        raise ValueError("the metric is not finite for every resample of the items")
    return Bootstrap(float(value[0]), drawn, left_out)


def bootstrap_interval(bootstrap: Bootstrap, confidence: float = 0.95) -> Interval:
    """The hull of the bootstrap's t interval and its BCa interval.

    The first is the value and Student's quantile (g - 1 degrees of freedom) times the bootstrap's standard error, the
    second `bca_interval`. The t interval covers metrics that jump from one resample to the next (F1), where BCa is too
    short; BCa covers skewed losses, where the t interval is too high. benchmarks/false_alarms.py compares them.
    """
    units = bootstrap.units
    student = t_interval(Mean(bootstrap.value, bootstrap.standard_error, units, units - 1), confidence)
    return hull(student, bca_interval(bootstrap, confidence))


def differing_units(difference: Bootstrap) -> tuple[int, int]:
    """How many items (or clusters) speak for the candidate, and how many against it, as far as they matter: those whose
    own difference is at least a tenth of the largest."""
    own = difference.own_values
    least = max(_NO_INFLUENCE, float(np.abs(own).max()) / 10)
    return int((own >= least).sum()), int((own <= -least).sum())


def bootstrap_p(difference: Bootstrap) -> float:
    """Two-sided p-value of a difference being zero: the smallest alpha at which `bootstrap_interval` leaves zero out.

    So it is the larger one of the p-values of its two intervals. No smaller than the sign-flip test could make it with
    as few items (or clusters) as make the difference.
    """
    if difference.value == 0:
        return 1.0
    least = min(1.0, 2.0 ** (1 - sum(differing_units(difference))))
    if difference.standard_error <= _NO_INFLUENCE:
        return least  # every item differs by the same: no draw of them says anything else
    student = 2 * float(stdtr(difference.units - 1, -abs(difference.value) / difference.standard_error))
    return min(1.0, max(student, _bca_p(difference), least))


def bca_interval(bootstrap: Bootstrap, confidence: float = 0.95) -> Interval:
    """The bias-corrected and accelerated interval, made wide enough for few items.

    BCa takes two percentiles of the resamples that allow for their bias and their skewness: with z the normal quantile,
    z0 that of the share of resamples below the value, and the acceleration a from leaving each item out, they are at
    Phi(z0 + (z0 + z) / (1 - a (z0 + z))). Source: Efron (1987), Journal of the American Statistical Association
    82:171-185. Resamples of n items are narrower than they should be by sqrt((n - 1) / n), and normal quantiles are
    those of endlessly many; so z is expanded to sqrt(n / (n - 1)) times Student's quantile with n - 1 degrees of
    freedom (Hesterberg, 2015, The American Statistician 69:371-386).
    """
    units = bootstrap.units
    reach = t_quantile(confidence, units - 1) * math.sqrt(units / (units - 1))
    bias, acceleration = _corrections(bootstrap)
    places = [bias + (bias + z) / max(_POSITIVE, 1 - acceleration * (bias + z)) for z in (-reach, reach)]
    lower, upper = np.quantile(bootstrap.resampled, ndtr(places))
    return Interval(float(lower), float(upper), confidence)


def _bca_p(difference: Bootstrap) -> float:
    """`bca_interval` solved for the confidence at which it ends at zero; resamples of exactly zero count as beyond it.

    No resample beyond zero counts as if one more had been there.
    """
    resampled = difference.resampled if difference.value > 0 else -difference.resampled
    beyond, resamples = int((resampled <= 0).sum()), resampled.size
    bias, acceleration = _corrections(difference)
    if difference.value < 0:
        bias, acceleration = -bias, -acceleration
    distance = float(ndtri(min(max(beyond, 1), resamples) / (resamples + 1))) - bias
    z = distance / max(_POSITIVE, 1 + acceleration * distance) - bias
    return 2 * float(stdtr(difference.units - 1, z * math.sqrt((difference.units - 1) / difference.units)))


def _corrections(bootstrap: Bootstrap) -> tuple[float, float]:
    """BCa's bias correction z0, ties counting half, and its acceleration a."""
    below = int((bootstrap.resampled < bootstrap.value).sum()) + int((bootstrap.resampled <= bootstrap.value).sum())
    resamples = bootstrap.resampled.size
    share = min(max(below / (2 * resamples), 1 / (resamples + 1)), resamples / (resamples + 1))
    influence = bootstrap.influence
    squares = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
    return float(ndtri(share)), acceleration


def draw_units(units: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each unit is drawn in each resample, (b, g) in chunks."""
    generator = np.random.default_rng(seed)
    rows = max(1, WEIGHTS_AT_ONCE // units)
    for first in range(0, resamples, rows):
        count = min(rows, resamples - first)
        places = generator.integers(0, units, (count, units)) + units * np.arange(count)[:, None]
        yield np.bincount(places.ravel(), minlength=count * units).reshape(count, units).astype(np.float64)


def _leave_each_out(units: int) -> Iterator[NDArray[np.float64]]:
    rows = max(1, WEIGHTS_AT_ONCE // units)
    for first in range(0, units, rows):
        places = np.arange(first, min(units, first + rows))
        weights = np.ones((places.size, units))
        weights[np.arange(places.size), places] = 0
        yield weights
