"""Tests and intervals for right-or-wrong answers, of one model and of two models on the same items.

The unit is the item. Two models answer the same items, so all that tells them apart are the discordant items, which
one of them gets right and the other wrong: `gained` (only the candidate is right) and `lost` (only the baseline is).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import binom, binomtest

from edgetune.judging.statistics.clusters import cluster_sums, number_clusters
from edgetune.judging.statistics.intervals import Interval
from edgetune.judging.statistics.scores import allow_for_unseen, measure_mean, t_quantile


@dataclass(frozen=True)
class PairedCounts:
    """How many items both models, one of them, or none gets right."""

    both_right: int
    gained: int
    lost: int
    both_wrong: int

    @property
    def items(self) -> int:
        """All items."""
        return self.both_right + self.gained + self.lost + self.both_wrong

    @property
    def difference(self) -> float:
        """Accuracy of the candidate minus accuracy of the baseline, from -1 to 1."""
        return (self.gained - self.lost) / self.items


def count_pairs(candidate_right: Sequence[bool], baseline_right: Sequence[bool]) -> PairedCounts:
    """Count two lists of outcomes on the same items. Raises ValueError when they differ in length."""
    pairs = list(zip(candidate_right, baseline_right, strict=True))
    return PairedCounts(
        both_right=pairs.count((True, True)),
        gained=pairs.count((True, False)),
        lost=pairs.count((False, True)),
        both_wrong=pairs.count((False, False)),
    )


def mcnemar_mid_p(gained: int, lost: int) -> float:
    """Two-sided mid-p value of McNemar's exact test: how readily chance alone splits the discordant items so unevenly.

    With m = gained + lost, k = min(gained, lost) and X ~ Binomial(m, 1/2): p = 2 P(X <= k) - P(X = k); when
    gained = lost, p = 1 - P(X = k) / 2; without a discordant item there is no evidence at all, and p = 1.
    Source: Fagerland, Lydersen, Laake (2013), BMC Medical Research Methodology 13:91, and its supplement.
    """
    discordant, fewer = gained + lost, min(gained, lost)
    if discordant == 0:
        return 1.0
    point = float(binom.pmf(fewer, discordant, 0.5))
    if gained == lost:
        return 1 - point / 2
    return 2 * float(binom.cdf(fewer - 1, discordant, 0.5)) + point


def bonett_price_interval(counts: PairedCounts, confidence: float = 0.95) -> Interval:
    """Interval of the difference of two accuracies on the same items: a Wald interval after adding one to each
    discordant count.

    With g = (gained + 1) / (n + 2) and l = (lost + 1) / (n + 2): g - l ± z sqrt((g + l - (g - l)²) / (n + 2)), cut to
    [-1, 1]. Source: Bonett, Price (2012), Journal of Educational and Behavioral Statistics 37:479-488; recommended by
    Fagerland, Lydersen, Laake (2014), Statistics in Medicine 33:2850-2875. Raises ValueError without items.
    """
    if counts.items == 0:
        raise ValueError("an interval needs at least one item")
    discordance, difference = _adjusted(counts)
    reach = _quantile(confidence) * math.sqrt((discordance - difference**2) / (counts.items + 2))
    return Interval(max(-1.0, difference - reach), min(1.0, difference + reach), confidence)


def wilson_interval(right: int, items: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of one accuracy. Raises ValueError without items.

    Source: Wilson (1927), Journal of the American Statistical Association 22:209-212.
    """
    bounds = binomtest(right, items).proportion_ci(confidence, method="wilson")
    return Interval(float(bounds.low), float(bounds.high), confidence)


def clustered_interval(differences: NDArray[np.float64], clusters: Sequence[str], confidence: float = 0.95) -> Interval:
    """Interval of the difference of two accuracies where items of one cluster may be alike; differences (n,) are -1, 0
    or 1 by item.

    Bonett and Price's one added gain and one added loss, each a cluster of one item, then a Wald interval with the
    cluster-robust standard error and Student's quantile with G - 1 degrees of freedom for G clusters. With every item
    its own cluster it is `bonett_price_interval` but for that quantile and the correction for few clusters. Made wider
    by `allow_for_unseen` where hardly a cluster differs, for an unseen one may flip whole. Cut to [-1, 1]. Sources: as
    there, and Liang, Zeger (1986), Biometrika 73:13-22. Raises ValueError for fewer than 2 clusters.
    """
    names = [*(f"={name}" for name in clusters), "gained", "lost"]
    adjusted = measure_mean(np.append(differences, [1.0, -1.0]), names)
    degrees = adjusted.units - 3
    if degrees < 1:
        raise ValueError("an interval needs at least 2 clusters")
    reach = t_quantile(confidence, degrees) * adjusted.standard_error
    sums = cluster_sums(differences, number_clusters(clusters, differences.size))
    interval = Interval(adjusted.value - reach, adjusted.value + reach, confidence)
    interval = allow_for_unseen(interval, int((sums > 0).sum()), int((sums < 0).sum()), sums.size, step=1.0)
    return Interval(max(-1.0, interval.lower), min(1.0, interval.upper), confidence)


def adjusted_difference(counts: PairedCounts) -> tuple[float, float]:
    """The difference and its standard error after adding one to each discordant count, as Bonett and Price do.

    For planning: the standard error is sqrt(discordance / n), without the square of the difference.
    """
    discordance, difference = _adjusted(counts)
    return difference, math.sqrt(discordance / counts.items)


def _adjusted(counts: PairedCounts) -> tuple[float, float]:
    """Discordance and difference after adding one to each discordant count, as Bonett and Price do."""
    n = counts.items + 2
    return (counts.gained + counts.lost + 2) / n, (counts.gained - counts.lost) / n


def _quantile(confidence: float) -> float:
    """The normal quantile that a two-sided interval of this confidence reaches to: 1.96 for 0.95."""
    return float(ndtri((1 + confidence) / 2))
