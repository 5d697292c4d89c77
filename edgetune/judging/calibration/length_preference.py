"""Whether a judge prefers answers for their length. Its errors show it, so that noise and ties do not count.

Of the pairs in which people prefer the shorter answer, and of those in which they prefer the longer one, a judge that
does not look at length errs on the same share. One that always names the longer answer errs on all of the first and on
none of the second. So the preference is the first error rate less the second: 1 for the longest answer, -1 for the
shortest, and 0 for a coin, for ties, for the first place and for people's votes with random mistakes, however many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from edgetune.judging.statistics.agreement import Agreement
from edgetune.judging.statistics.bootstrap import bootstrap_interval, resample
from edgetune.judging.statistics.intervals import Interval
from edgetune.metrics.aggregates import Aggregate

FEWEST_PAIRS = 5
"""Of fewer pairs where people prefer the shorter answer, or the longer one, nothing is said."""

_NOTHING_LEFT = 1e-12


def measure_length_preference(
    verdicts: NDArray[np.float64], golds: NDArray[np.float64], longer: NDArray[np.float64], confidence: float = 0.95
) -> Agreement | None:
    """Error rate where people prefer the shorter answer less that where they prefer the longer one, from -1 to 1.

    All are (n,): the judge's and people's verdicts are 1 (the first answer), -1 (the second) or 0 (a tie), and `longer`
    says in the same way which answer is longer. A tie of the judge is half an error. Pairs that people call a tie, and
    answers of one length, say nothing. None with fewer than FEWEST_PAIRS pairs on either side.
    """
    errors = np.abs(verdicts - golds) / 2
    shorter_is_better, longer_is_better = (errors[golds * longer == sign] for sign in (-1, 1))
    fewest = min(shorter_is_better.size, longer_is_better.size)
    if fewest < FEWEST_PAIRS:
        return None
    value = float(shorter_is_better.mean() - longer_is_better.mean())
    interval = newcombe_interval(shorter_is_better, longer_is_better, confidence)
    return Agreement(value, interval, shorter_is_better.size + longer_is_better.size)


def newcombe_interval(first: NDArray[np.float64], second: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """Interval of the difference of two means of values between 0 and 1, from Wilson's interval of each.

    Source: Newcombe (1998), Statistics in Medicine 17:873-890, method 10, for shares. Values between 0 and 1 vary less
    than shares of the same mean, so that the interval is rather too wide for them.
    """
    (p1, lower1, upper1), (p2, lower2, upper2) = (_wilson(values, confidence) for values in (first, second))
    below, above = math.hypot(p1 - lower1, upper2 - p2), math.hypot(upper1 - p1, p2 - lower2)
    return Interval(p1 - p2 - below, p1 - p2 + above, confidence)


def _wilson(values: NDArray[np.float64], confidence: float) -> tuple[float, float, float]:
    """The mean and the ends of Wilson's interval of it (1927, Journal of the American Statistical Association 22)."""
    mean, n, z = float(values.mean()), values.size, float(ndtri((1 + confidence) / 2))
    center = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    return mean, center - reach, center + reach


def measure_length_taste(
    verdicts: Sequence[float], golds: Sequence[float], lengths: Sequence[float], confidence: float = 0.95
) -> Agreement:
    """How a judge's grades depend on length where people's grades are equal: a partial rank correlation, from -1 to 1.

    0 for grades that are people's own with noise, for noise alone, and for one grade for all; 1 and -1 for grades by
    length alone. Ranks are those among all items. Source: Kendall (1942), Biometrika 32:277-283, for ranks.
    """
    ranks = [rankdata(values) for values in (verdicts, golds, lengths)]
    bootstrap = resample(_partial_correlation(*ranks), len(verdicts))
    return Agreement(bootstrap.value, bootstrap_interval(bootstrap, confidence), len(verdicts))


def _partial_correlation(
    judge: NDArray[np.float64], people: NDArray[np.float64], length: NDArray[np.float64]
) -> Aggregate:
    """Correlation of judge and length after what people's grades explain of either; (n,) each."""

    def correlate(counts: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        total = counts.sum(axis=1)
        mean_x, mean_y = counts @ x / total, counts @ y / total
        covariance = counts @ (x * y) / total - mean_x * mean_y
        spread = (counts @ x**2 / total - mean_x**2) * (counts @ y**2 / total - mean_y**2)
        return np.where(spread > _NOTHING_LEFT, covariance / np.sqrt(np.where(spread > _NOTHING_LEFT, spread, 1)), 0.0)

    def partial(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        by_length, by_people = correlate(counts, judge, length), correlate(counts, judge, people)
        taste = correlate(counts, people, length)
        left = (1 - by_people**2) * (1 - taste**2)
        own = by_length - by_people * taste
        return np.where(left > _NOTHING_LEFT, own / np.sqrt(np.where(left > _NOTHING_LEFT, left, 1)), 0.0)

    return partial
