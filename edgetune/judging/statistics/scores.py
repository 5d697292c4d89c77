"""Means of scores, of one model and of the differences between two models on the same items.

The unit is the item, or the cluster where the suite names one. What is compared is candidate - baseline by item, after
averaging repeats, orders and judges, so that an item that is hard for both models adds nothing to the noise. Student's
interval is for values without a scale (length, likelihood); `bounded` has the one for all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from edgetune.judging.statistics.clusters import cluster_sums, number_clusters
from edgetune.judging.statistics.intervals import Interval


@dataclass(frozen=True)
class Mean:
    """A mean over items with its standard error. `units` counts what is independent: items, or clusters; `degrees` of
    freedom are one less, or fewer where clusters differ in size."""

    value: float
    standard_error: float
    units: int
    degrees: float


def mean_with_error(values: NDArray[np.float64], clusters: Sequence[str] | None = None) -> Mean:
    """The mean of values (n,) and its standard error, which is robust to items of one cluster being alike.

    With S_g the sum over the m_g items of cluster g and the mean x: the squared standard error is the sum of
    (S_g - m_g x)² / (1 - m_g / n), over n². With every item its own cluster this is the usual s / sqrt(n). Sources:
    Liang, Zeger (1986), Biometrika 73:13-22, with the correction for few clusters that is called CR2 and the degrees of
    freedom of Bell, McCaffrey (2002), Survey Methodology 28:169-181 (see also Imbens, Kolesar, 2016, Review of
    Economics and Statistics 98:701-712), for items of a cluster that are wholly alike. Raises ValueError for fewer than
    2 items or clusters.
    """
    numbers = number_clusters(clusters, values.size)
    sizes = np.bincount(numbers)
    units = sizes.size
    if units < 2:
        raise ValueError(f"a standard error needs at least 2 {'items' if clusters is None else 'clusters'}")
    value = float(values.mean())
    deviations = cluster_sums(values, numbers) - sizes * value
    # Equal values differ from their own mean by rounding alone, and that is no variance.
    deviations[np.abs(deviations) < 1e-12 * max(1.0, float(np.abs(values).max())) * sizes] = 0
    shares = sizes / values.size
    squared = float((deviations / (1 - shares)) @ deviations)
    return Mean(value, math.sqrt(squared) / values.size, units, _degrees(shares))


def _degrees(shares: NDArray[np.float64]) -> float:
    """Bell and McCaffrey's degrees of freedom from each cluster's share w of the items, (g,): G - 1 for equal shares.

    The squared error is a sum of squares whose covariances, were the items of a cluster wholly alike, are
    c_g c_h w_g w_h ([g = h] - w_g - w_h + sum of w²) with c² = 1 / (1 - w); a chi-squared variable of as many degrees
    as trace² / trace of the square has its mean and variance.
    """
    weights, square = shares**2 / (1 - shares), float(shares @ shares)
    trace = float(weights @ (1 - 2 * shares + square))
    none, once, twice = (float(weights @ shares**power) for power in (0, 1, 2))
    products = square**2 * none**2 - 4 * square * none * once + 2 * none * twice + 2 * once**2
    diagonal = float((weights**2) @ ((1 - 2 * shares + square) ** 2 - (square - 2 * shares) ** 2))
    return trace**2 / (products + diagonal)


def t_interval(mean: Mean, confidence: float = 0.95) -> Interval:
    """Student's interval of a mean."""
    reach = t_quantile(confidence, mean.degrees) * mean.standard_error
    return Interval(mean.value - reach, mean.value + reach, confidence)


def too_few_differ(differing: int, alpha: float) -> bool:
    """Whether no signs of so many differences could be significant: the smallest p-value of m sign flips is 2^(1 - m).

    Below 6 for alpha 0.05.
    """
    return 2.0 ** (1 - differing) >= alpha


def largest_share(seen: int, units: int, confidence: float) -> float:
    """The upper bound of a two-sided interval of a share of which `seen` of `units` were seen.

    Of none in n, about 3.7 / n for a confidence of 0.95. Source: Clopper, Pearson (1934), Biometrika 26:404-413; of
    none, and on one side, it is known as the rule of three (Hanley, Lippman-Hand, 1983, JAMA 249:1743-1745).
    """
    return 1.0 if seen == units else float(betaincinv(seen + 1, units - seen, (1 + confidence) / 2))


def t_quantile(confidence: float, degrees: float) -> float:
    """The quantile of Student's distribution that a two-sided interval of this confidence reaches to."""
    return float(stdtrit(degrees, (1 + confidence) / 2))
