"""How a judge's verdicts compare with people's: agreement, and preferences that people do not have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetune.judging.calibration.gold import GoldItem
from edgetune.judging.calibration.length_preference import measure_length_preference, measure_length_taste
from edgetune.judging.statistics.agreement import Agreement, measure_accuracy, measure_alpha, measure_kappa
from edgetune.judging.statistics.agreement import measure_spearman as measure_rank_correlation
from edgetune.judging.statistics.bootstrap import bootstrap_interval, resample
from edgetune.judging.suites.rubric import SCALE

FEWEST_ITEMS = 2
"""A figure over fewer items is left out."""

TITLES = {
    "accuracy": "agreement with people (a tie against a winner counts half)",
    "exact": "the same grade as people",
    "kappa": "Cohen's kappa",
    "weighted_kappa": "weighted kappa",
    "alpha": "Krippendorff's alpha, judge and people",
    "people_alpha": "Krippendorff's alpha, people among themselves",
    "rank_correlation": "Spearman's correlation with people's grades",
    "consistency": "pairs with the same verdict in both orders",
    "position": "preference for the first place (-1 to 1)",
    "length": "preference for the longer answer (-1 to 1)",
    "unscored": "verdicts that cannot be read",
}
"""What each figure is, for people; in the order in which they are shown."""


@dataclass(frozen=True)
class JudgedItem:
    """What people and a judge made of one item: 1, -1 or 0 of a pair, or a grade. `verdict` is None when unscored."""

    gold: GoldItem
    verdict: float | None
    position: float | None = None
    """Of a pair that the judge was asked about: the mean over its verdicts of 1 (first place), -1 (second), 0 (tie)."""


@dataclass(frozen=True)
class SetReport:
    """A judge on one set of people's votes, or on all together.

    It was asked about `items`, and `scored` of them have a verdict. `by_rule` more were decided without asking
    (degenerate or equal answers), and `left_out` more have no majority among people; no figure counts them.
    """

    name: str
    items: int
    scored: int
    by_rule: int
    left_out: int
    figures: dict[str, Agreement]


def pair_figures(judged: Sequence[JudgedItem]) -> dict[str, Agreement]:
    """Figures of pairs. Unscored items are left out; figures that need more than there is are absent.

    `accuracy` gives half a point where one side says tie and the other names a winner. `kappa` counts three categories
    (first, second, tie), of which a tie is as wrong as any other; `weighted_kappa` has it half way between. `length` is
    as in `measure_length_preference`.
    """
    scored = [(each.gold, each.verdict) for each in judged if each.verdict is not None]
    if len(scored) < FEWEST_ITEMS:
        return {}
    verdicts = np.array([verdict for _, verdict in scored])
    golds = np.array([_gold(item) for item, _ in scored])
    categories = (-1.0, 0.0, 1.0)
    figures = {
        "accuracy": _mean(1 - np.abs(verdicts - golds) / 2),
        "kappa": measure_kappa(verdicts.tolist(), golds.tolist(), categories),
        "weighted_kappa": measure_kappa(verdicts.tolist(), golds.tolist(), categories, weights="linear"),
        "alpha": measure_alpha(_ratings([(verdict, *item.votes) for item, verdict in scored])),
    }
    if _have_several_votes(scored):
        figures["people_alpha"] = measure_alpha(_ratings([item.votes for item, _ in scored]))
    positions = np.array([each.position for each in judged if each.position is not None])
    if positions.size >= FEWEST_ITEMS:
        figures["position"] = _mean(positions)
    longer = np.sign([float(len(item.answers[0]) - len(item.answers[1])) for item, _ in scored])
    length = measure_length_preference(verdicts, golds, longer)
    return figures if length is None else {**figures, "length": length}


def grade_figures(judged: Sequence[JudgedItem]) -> dict[str, Agreement]:
    """Figures of single answers' grades. `exact` and the kappas round both sides to whole grades.

    `weighted_kappa` is quadratic. `length` is as in `measure_length_taste`.
    """
    scored = [(each.gold, each.verdict) for each in judged if each.verdict is not None]
    if len(scored) < FEWEST_ITEMS:
        return {}
    verdicts, golds = [verdict for _, verdict in scored], [_gold(item) for item, _ in scored]
    ours, theirs = [_whole(verdict) for verdict in verdicts], [_whole(gold) for gold in golds]
    figures = {
        "exact": measure_accuracy(ours, theirs),
        "kappa": measure_kappa(ours, theirs, SCALE),
        "weighted_kappa": measure_kappa(ours, theirs, SCALE, weights="quadratic"),
        "rank_correlation": measure_rank_correlation(verdicts, golds),
        "alpha": measure_alpha(_ratings([(verdict, *item.votes) for item, verdict in scored]), level="interval"),
    }
    if _have_several_votes(scored):
        figures["people_alpha"] = measure_alpha(_ratings([item.votes for item, _ in scored]), level="interval")
    lengths = [float(len(item.answers[0])) for item, _ in scored]
    return {**figures, "length": measure_length_taste(verdicts, golds, lengths)}


def _gold(item: GoldItem) -> float:
    assert item.gold is not None, "items without a majority are left out when they are read"
    return item.gold


def _whole(grade: float) -> int:
    return math.floor(grade + 0.5)


def _have_several_votes(scored: Sequence[tuple[GoldItem, float]]) -> bool:
    return sum(len(item.votes) > 1 for item, _ in scored) >= FEWEST_ITEMS


def _ratings(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Ratings by item -> (raters, items), NaN where an item has fewer."""
    table = np.full((max(map(len, rows)), len(rows)), np.nan)
    for place, row in enumerate(rows):
        table[: len(row), place] = row
    return table


def _mean(values: NDArray[np.float64]) -> Agreement:
    bootstrap = resample(lambda counts: counts @ values / counts.sum(axis=1), values.size)
    return Agreement(bootstrap.value, bootstrap_interval(bootstrap), values.size)
