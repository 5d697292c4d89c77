"""Right-or-wrong answers: the test of two models on the same items, and the interval of one model.

The unit is the item. Two models answer the same items, so all that tells them apart are the discordant items, which
one of them gets right and the other wrong: `gained` (only the candidate is right) and `lost` (only the baseline is).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binom, binomtest

from edgetune.judging.statistics.intervals import Interval


@dataclass(frozen=True)
class PairedCounts:
    """How many items both models, one of them, or none gets right."""

    both_right: int
    gained: int
    lost: int
    both_wrong: int

    @property
    def items(self) -> int:
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


def wilson_interval(right: int, items: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of one accuracy. Raises ValueError without items.

    Source: Wilson (1927), Journal of the American Statistical Association 22:209-212.
    """
    bounds = binomtest(right, items).proportion_ci(confidence, method="wilson")
    return Interval(float(bounds.low), float(bounds.high), confidence)


def adjusted_difference(counts: PairedCounts) -> tuple[float, float]:
    """The difference and its standard error after adding one gained and one lost item, for planning: where none was
    seen, more items would hold some. The standard error is sqrt(discordance / n), without the square of the difference.

    Source: Bonett, Price (2012), Journal of Educational and Behavioral Statistics 37:479-488.
    """
    items = counts.items + 2
    discordance, difference = (counts.gained + counts.lost + 2) / items, (counts.gained - counts.lost) / items
    return difference, math.sqrt(discordance / counts.items)
