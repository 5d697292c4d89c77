"""How well two or more raters agree, beyond what chance alone would give: a judge with people, or people with each
other.

Every coefficient is 1 for perfect agreement and 0 for what chance gives. Where it is undefined, because all ratings are
the same, it counts as 0: nothing beyond chance was shown, and a judge that has to show agreement has not. Items (or
whole clusters) are resampled for the intervals, with a seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgetune.judging.statistics.accuracy import wilson_interval
from edgetune.judging.statistics.bootstrap import Bootstrap, bootstrap_interval, differing_units, resample
from edgetune.judging.statistics.intervals import Interval
from edgetune.judging.statistics.scores import largest_share, too_few_differ
from edgetune.metrics.aggregates import Aggregate

Weights = Literal["equal", "linear", "quadratic"]
"""How much two categories disagree: equal counts every disagreement alike, linear by their distance in the order of the
categories, quadratic by its square."""

Level = Literal["nominal", "ordinal", "interval"]
"""What the distances between ratings mean: nothing, their order, or their differences."""


_STEP = 2.0
"""What an item costs that disagrees: of two categories used alike, chance disagrees on every second item, and a
coefficient falls from 1 by the share of disagreements over that half. So where hardly an item disagrees, the interval
allows for those that were not seen, as `scores.allow_for_unseen` does for losses."""


@dataclass(frozen=True)
class Agreement:
    """A coefficient over `items` items, with its interval."""

    value: float
    interval: Interval
    items: int


def measure_accuracy(given: Sequence[Hashable], right: Sequence[Hashable], *, confidence: float = 0.95) -> Agreement:
    """The share of items that are rated as they should be, with Wilson's interval. Raises ValueError without items or
    for lists of different lengths."""
    agreeing = sum(a == b for a, b in zip(given, right, strict=True))
    if not given:
        raise ValueError("an accuracy needs at least one item")
    return Agreement(agreeing / len(given), wilson_interval(agreeing, len(given), confidence), len(given))


def measure_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    categories: Sequence[Hashable],
    *,
    weights: Weights = "equal",
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Cohen's kappa of two raters of the same items; with `weights`, his weighted kappa over `categories` in order.

    One minus the observed disagreement over the one expected of two raters who use the categories as often as these but
    independently. Sources: Cohen (1960), Educational and Psychological Measurement 20:37-46; Cohen (1968),
    Psychological Bulletin 70:213-220. Raises ValueError for a rating outside the categories, for lists of different
    lengths and for fewer than 2 items or clusters.
    """
    places = {category: place for place, category in enumerate(categories)}
    if strangers := {*first, *second} - set(places):
        raise ValueError(f"ratings outside the categories: {', '.join(sorted(map(str, strangers)))}")
    cells = [places[a] * len(places) + places[b] for a, b in zip(first, second, strict=True)]
    aggregate = _kappa(np.array(cells, dtype=np.intp), len(places), weights)
    return _with_interval(aggregate, len(cells), clusters, confidence, seed)


def measure_alpha(
    ratings: NDArray[np.float64],
    *,
    level: Level = "nominal",
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Krippendorff's alpha of any number of raters; ratings (raters, items), NaN where a rater left an item out.

    One minus the observed disagreement within items over the one expected when all ratings are shuffled over all items.
    Items with fewer than 2 ratings say nothing about agreement and are left out (`items` counts the others). Source:
    Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, https://repository.upenn.edu/asc_papers/43. Raises
    ValueError when fewer than 2 items or clusters are left.
    """
    paired = (~np.isnan(ratings)).sum(axis=0) >= 2
    kept = ratings[:, paired]
    if clusters is not None:
        clusters = [name for name, keep in zip(clusters, paired, strict=True) if keep]
    values, places = np.unique(kept[~np.isnan(kept)], return_inverse=True)
    counts = np.zeros((kept.shape[1], values.size))
    np.add.at(counts, (np.nonzero(~np.isnan(kept))[1], places), 1)
    return _with_interval(_alpha(counts, values, level), kept.shape[1], clusters, confidence, seed)


def measure_spearman(
    first: Sequence[float],
    second: Sequence[float],
    *,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Spearman's rank correlation of two raters of the same items; ties share their mean rank.

    Source: Spearman (1904), American Journal of Psychology 15:72-101. Raises ValueError for lists of different lengths
    and for fewer than 2 items or clusters.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} ratings cannot be compared")
    return _with_interval(_spearman(_one_hot(first), _one_hot(second)), len(first), clusters, confidence, seed)


def _with_interval(
    aggregate: Aggregate, items: int, clusters: Sequence[str] | None, confidence: float, seed: int
) -> Agreement:
    bootstrap = resample(aggregate, items, clusters, seed=seed)
    perfect = Bootstrap(1.0, np.ones_like(bootstrap.resampled), np.ones_like(bootstrap.left_out))
    disagreeing = differing_units(perfect.minus(bootstrap))[0]
    interval = bootstrap_interval(bootstrap, confidence)
    lower = interval.lower
    if too_few_differ(disagreeing, 1 - confidence):
        lower = min(lower, 1 - _STEP * largest_share(disagreeing, bootstrap.units, confidence))
    return Agreement(bootstrap.value, Interval(max(-1.0, lower), min(1.0, interval.upper), confidence), items)


def _kappa(cells: NDArray[np.intp], categories: int, weights: Weights) -> Aggregate:
    """Kappa from each item's cell in the table of both ratings, (n,)."""
    order = np.arange(categories)
    distances = np.abs(order[:, None] - order[None, :]).astype(np.float64)
    disagreement = {"equal": (distances > 0) * 1.0, "linear": distances, "quadratic": distances**2}[weights]
    item_cells = np.zeros((cells.size, categories**2))
    item_cells[np.arange(cells.size), cells] = 1

    def kappa(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        table = (counts @ item_cells).reshape(-1, categories, categories)
        observed = (table * disagreement).sum(axis=(1, 2)) * counts.sum(axis=1)
        expected = np.einsum("bi,ij,bj->b", table.sum(axis=2), disagreement, table.sum(axis=1))
        return _one_minus(observed, expected)

    return kappa


def _alpha(ratings: NDArray[np.float64], values: NDArray[np.float64], level: Level) -> Aggregate:
    """Alpha from how often each item got each value, (n, v); values (v,) in ascending order.

    The squared distance of two values is 1 (nominal), that of their mean ranks among all ratings (ordinal; this is what
    Krippendorff's sum over the ranks between them comes to) or their own (interval). With places x of the values on a
    line, the sum of (x - y)² over all ordered pairs of m ratings is 2 (m times the sum of x² - the square of the sum).
    """
    raters = ratings.sum(axis=1)

    def alpha(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        marginals = counts @ ratings
        total = marginals.sum(axis=1)
        if level == "nominal":
            observed = counts @ ((raters**2 - (ratings**2).sum(axis=1)) / (raters - 1))
            expected = total**2 - (marginals**2).sum(axis=1)
        else:
            ordinal = np.cumsum(marginals, axis=1) - marginals / 2
            places = ordinal if level == "ordinal" else np.broadcast_to(values - values.mean(), marginals.shape)
            within = raters * (places**2 @ ratings.T) - (places @ ratings.T) ** 2
            observed = 2 * (counts * within / (raters - 1)).sum(axis=1)
            expected = 2 * (total * (marginals * places**2).sum(axis=1) - (marginals * places).sum(axis=1) ** 2)
        return _one_minus((total - 1) * observed, expected)

    return alpha


def _spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> Aggregate:
    """The correlation of ranks, from each item's value among the sorted values of its rater, (n, v) each."""

    def spearman(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        deviations = []
        for hot in (first, second):
            marginals = counts @ hot
            ranks = (np.cumsum(marginals, axis=1) - marginals / 2) @ hot.T
            # A mean rank is half the number of items.
            deviations.append(ranks - counts.sum(axis=1, keepdims=True) / 2)
        x, y = deviations
        covariance = (counts * x * y).sum(axis=1)
        spread = np.sqrt((counts * x**2).sum(axis=1) * (counts * y**2).sum(axis=1))
        return np.where(spread > 0, covariance / np.where(spread > 0, spread, 1), 0.0)

    return spearman


def _one_hot(values: Sequence[float]) -> NDArray[np.float64]:
    distinct, places = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True)
    return np.eye(distinct.size)[places]


def _one_minus(observed: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - observed / expected; 0 where nothing is expected."""
    defined = expected > 0
    return np.where(defined, 1 - observed / np.where(defined, expected, 1), 0.0)
