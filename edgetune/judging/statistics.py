"""Tests and intervals for right-or-wrong answers, of one model and of two models on the same items.

The unit is the item. Two models answer the same items, so all that tells them apart are the discordant items, which
one of them gets right and the other wrong: `gained` (only the candidate is right) and `lost` (only the baseline is).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binom, binomtest, norm

POWER = 0.8
"""How surely a comparison should show an effect that is there; the usual choice."""


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    lower: float
    upper: float
    confidence: float


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


def smallest_visible_loss(counts: PairedCounts, alpha: float) -> float:
    """The smallest loss of accuracy that this many items would show as significant, four times in five or more often.

    A normal approximation: with z = z(1 - alpha/2) + z(0.8) and the observed discordance d = (gained + lost) / n, a
    difference has a standard error of about sqrt(d / n), so the loss is z sqrt(d / n). A loss is never larger than the
    discordance that it comes from; where d is too small for it, d is the loss itself, which gives z² / n. At most 1.
    """
    reach = _quantile(1 - alpha) + float(norm.ppf(POWER))
    discordance = (counts.gained + counts.lost) / counts.items
    return min(1.0, max(reach * math.sqrt(discordance / counts.items), reach**2 / counts.items))


def items_to_decide(counts: PairedCounts, margin: float, alpha: float) -> int | None:
    """About how many items would decide four times in five, if difference and discordance stay as they are.

    A normal approximation: n = z² d / distance², with z as in `smallest_visible_loss`, and discordance d and difference
    as Bonett and Price adjust them. A loss smaller than the margin has to be told from the margin (distance =
    difference + margin), any other from zero (distance = -difference). None when the distance is zero or next to it:
    no number would do.
    """
    reach = _quantile(1 - alpha) + float(norm.ppf(POWER))
    discordance, difference = _adjusted(counts)
    distance = difference + margin if counts.difference > -margin else -difference
    return None if distance < 1e-6 else math.ceil(reach**2 * discordance / distance**2)


def _adjusted(counts: PairedCounts) -> tuple[float, float]:
    """Discordance and difference after adding one to each discordant count, as Bonett and Price do."""
    n = counts.items + 2
    return (counts.gained + counts.lost + 2) / n, (counts.gained - counts.lost) / n


def _quantile(confidence: float) -> float:
    """The normal quantile that a two-sided interval of this confidence reaches to: 1.96 for 0.95."""
    return float(norm.ppf((1 + confidence) / 2))
