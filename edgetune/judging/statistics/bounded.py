"""Intervals of means on a scale with two ends, which also allow for what the items at hand do not show.

Twenty equal grades have no spread, and yet one answer in ten may collapse: twenty items need not contain one. Student's
interval knows only the spread that it sees, and so claims too much of a mean of skewed values. Here the scale speaks:
what was not seen can be as bad as its worst end, and no worse.

The lower bound adds one observation at the worst end of the scale to the items (or clusters) and weighs all of them by
a Dirichlet distribution; it is a low percentile of the weighted mean. The upper bound is the same in the mirror. With
the weight 1 for what was added, this is Gaffke's bound: of zeros and ones it is exactly that of Clopper and Pearson,
and no distribution is known for which it fails. It pays for that with values between the ends, where it is wider than
it need be. So what is reported is the wider one of two:

- the bound with half the weight, as a mid-p value counts half of what is exactly as extreme as the observed;
- the whole bound of what falls farthest: items (or clusters) that lie beyond the middle between the mean and the worst
  end, while all others stand at their own mean.

Simulated, a true value lies below the lower bound in at most 3 % of the runs where 2.5 % are nominal, from 50 items on
(benchmarks/false_alarms.py).

Sources: Gaffke (2005), Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
variable, Mathematical Methods of Statistics 14:451-467; Learned-Miller, Thomas (2020), A new confidence interval for
the mean of a bounded random variable, arXiv:1905.06208; Phan, Thomas, Learned-Miller (2021), Towards practical mean
bounds for small samples, ICML, arXiv:2106.03163; Clopper, Pearson (1934), Biometrika 26:404-413.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv, ndtri

from edgetune.judging.statistics.clusters import cluster_sums, number_clusters
from edgetune.judging.statistics.intervals import Interval

_UNSEEN = 0.5
"""The weight of the added observation among all items; among those that fall farthest it is 1."""

_SAME = 1e-12
"""Values closer than this share of the scale are one value."""

_NEWTON_STEPS = 200
"""Four to eight are the rule."""

_NEXT_TO_THE_MEAN = 1e-3
"""In standard errors: nearer than this the approximation would divide rounding by rounding."""


@dataclass(frozen=True)
class _Units:
    """What is independent, in groups of equals: `counts` (k,) clusters each whose values sum to `sums` over `sizes`."""

    sums: NDArray[np.float64]
    sizes: NDArray[np.float64]
    counts: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.counts @ self.sums) / self.items

    @property
    def items(self) -> float:
        return float(self.counts @ self.sizes)

    def mirrored(self) -> _Units:
        return _Units(-self.sums, self.sizes, self.counts)

    def and_unseen(self, worst: float, weight: float) -> _Units:
        """With one more unit, all of it at the worst end. Its size is that of the unit in which an item lies on
        average: large clusters, which few are, weigh most."""
        size = float(self.counts @ self.sizes**2) / self.items
        return _Units(np.append(self.sums, size * worst), np.append(self.sizes, size), np.append(self.counts, weight))


def bounded_interval(
    values: NDArray[np.float64],
    lowest: float,
    highest: float,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Interval of the mean of values (n,) on a scale from `lowest` to `highest`; it never leaves the scale.

    Values beyond the ends widen the scale. With `clusters` whole clusters are weighed, so that items of one may be
    alike, and what was not seen is a whole cluster, of the size of that in which an item lies on average. Raises
    ValueError for fewer than 2 items or clusters.
    """
    numbers = number_clusters(clusters, values.size)
    sizes = np.bincount(numbers).astype(np.float64)
    if sizes.size < 2:
        raise ValueError(f"an interval needs at least 2 {'items' if clusters is None else 'clusters'}")
    lowest, highest = min(lowest, float(values.min())), max(highest, float(values.max()))
    if clusters is None:
        sums, counts = np.unique(values, return_counts=True)
        units = _Units(sums, np.ones(sums.size), counts.astype(np.float64))
    else:
        units = _Units(cluster_sums(values, numbers), sizes, np.ones(sizes.size))
    tail = (1 - confidence) / 2
    lower, upper = _lower_bound(units, lowest, tail), -_lower_bound(units.mirrored(), -highest, tail)
    return Interval(max(lowest, min(lower, units.mean)), min(highest, max(upper, units.mean)), confidence)


def _lower_bound(units: _Units, worst: float, tail: float) -> float:
    cautious = _percentile(units.and_unseen(worst, _UNSEEN), tail)
    return min(cautious, _percentile(_farthest_falls(units, worst).and_unseen(worst, 1.0), tail))


def _farthest_falls(units: _Units, worst: float) -> _Units:
    """The units beyond the middle between the mean and the worst end as they are, all others at their own mean."""
    far = units.sums <= units.sizes * (units.mean + worst) / 2
    near = _Units(units.sums[~far], units.sizes[~far], units.counts[~far])
    count = float(near.counts.sum())
    if count == 0:
        return units
    size = near.items / count
    return _Units(
        np.append(units.sums[far], size * near.mean),
        np.append(units.sizes[far], size),
        np.append(units.counts[far], count),
    )


def _percentile(units: _Units, tail: float) -> float:
    """The percentile of the mean over units that are weighed by a Dirichlet distribution with their counts.

    Of two values the weight of one has a Beta distribution. Otherwise the mean is at most t where the sum of the units'
    Gamma variables, each times sum - size t, is at most zero; its probability is that of the saddlepoint approximation
    (Barndorff-Nielsen, 1986, Biometrika 73:307-322; Butler, 2007, Saddlepoint Approximations with Applications,
    section 1.2), and the percentile is right to about a fiftieth of its distance from the mean.
    """
    means = units.sums / units.sizes
    low, high, mean = float(means.min()), float(means.max()), units.mean
    same = _SAME * max(1.0, abs(low), abs(high))
    if high - low <= same:
        return low
    at_low, at_high = means <= low + same, means >= high - same
    if (at_low | at_high).all() and np.ptp(units.sizes) <= _SAME * units.sizes[0]:
        share = float(betaincinv(units.counts[at_high].sum(), units.counts[at_low].sum(), tail))
        return low + (high - low) * share
    deviations = units.sums - units.sizes * mean
    spread = math.sqrt(float(units.counts @ deviations**2)) / units.items
    wanted, least, most = float(ndtri(tail)), mean, mean - _NEXT_TO_THE_MEAN * spread
    for reach in (2.0, 4.0, 8.0, 16.0, 32.0, 64.0):
        least = max(mean - reach * spread, low + 0.5 ** (reach / 2) * (mean - low))
        if _normal_place(units, least) < wanted:
            break
        most = least
    return float(brentq(lambda place: _normal_place(units, place) - wanted, least, most, xtol=1e-7 * (high - low)))


def _normal_place(units: _Units, place: float) -> float:
    """The normal quantile of the probability that the weighed mean is at most `place`, which lies below its mean."""
    slopes, counts = units.sums - units.sizes * place, units.counts
    tilt = _tilt(slopes, counts)
    shares = slopes / (1 - slopes * tilt)
    root = -math.sqrt(2 * float(counts @ np.log1p(-slopes * tilt)))
    return root + math.log(tilt * math.sqrt(float(counts @ shares**2)) / root) / root


def _tilt(slopes: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """The tilt s below zero at which the sum of counts slopes / (1 - s slopes) is zero.

    By Newton's method, held between zero and the place where the steepest fall would weigh without end.
    """
    end, tilt = 1 / float(slopes.min()), 0.0
    for _ in range(_NEWTON_STEPS):
        shares = slopes / (1 - slopes * tilt)
        wanted = tilt - float(counts @ shares) / float(counts @ shares**2)
        moved = (tilt + end) / 2 if wanted <= end else wanted if wanted < 0 else tilt / 2
        if abs(moved - tilt) <= _SAME * abs(moved):
            break
        tilt = moved
    return tilt
