"""Many verdicts -> one number for each item, and the shares by which a judge is checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from edgetune.judging.grading.grades import Grade, Preference

VALUES = {"candidate": 1.0, "baseline": -1.0, "tie": 0.0}
"""The value of each winner."""


@dataclass(frozen=True)
class Share:
    """A count out of a total."""

    count: int
    of: int

    @property
    def share(self) -> float | None:
        """From 0 to 1; None where the total is 0."""
        return self.count / self.of if self.of else None


def mean_scores(grades: Iterable[Grade]) -> dict[str, dict[str, float]]:
    """Each item's mean score by criterion, from 1 to 5: over the repeats of each judge, then over the judges.

    Items without any scored grade are absent.
    """
    by_judge: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for grade in grades:
        if grade.scores is not None:
            by_judge[grade.item][grade.judge].append(grade.scores)
    return {item: _mean([_mean(scores) for scores in judges.values()]) for item, judges in by_judge.items()}


def mean_preferences(preferences: Iterable[Preference]) -> dict[str, float]:
    """Each item's preference from -1 (baseline) to 1 (candidate): over the repeats of each judge, then over the judges.

    A pair of orders counts 1 or -1 when both name the same winner and 0 when they disagree or name none; it is unscored
    when one of them is. Items without any scored pair are absent.
    """
    by_judge: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for orders in pairs_of_orders(preferences):
        value = value_of_orders(orders)
        if value is not None:
            by_judge[orders[0].item][orders[0].judge].append(value)
    return {item: fmean(fmean(values) for values in judges.values()) for item, judges in by_judge.items()}


def value_of_orders(orders: Sequence[Preference]) -> float | None:
    """The value of the two orders of one pair: 1, -1 or 0; None when it is unscored."""
    winners = {preference.winner for preference in orders}
    if None in winners or len(orders) < 2:
        return None
    return VALUES[str(winners.pop())] if len(winners) == 1 else 0.0


def pairs_of_orders(preferences: Iterable[Preference]) -> list[list[Preference]]:
    """The verdicts on the same pair by the same judge in the same repeat, together."""
    pairs: dict[tuple[str, str, int], list[Preference]] = defaultdict(list)
    for preference in preferences:
        pairs[preference.item, preference.judge, preference.repeat].append(preference)
    return list(pairs.values())


def unscored_share(verdicts: Iterable[Grade | Preference]) -> Share:
    """How many of the verdicts that a judge was asked for are unscored."""
    asked = [verdict for verdict in verdicts if verdict.degenerate is None]
    return Share(sum(verdict.problem is not None for verdict in asked), len(asked))


def order_consistency(preferences: Iterable[Preference]) -> Share:
    """How many of the pairs that a judge was asked about, and scored, have one winner (or a tie) in both orders."""
    asked = [orders for orders in pairs_of_orders(preferences) if orders[0].degenerate is None]
    scored = [orders for orders in asked if value_of_orders(orders) is not None]
    return Share(sum(len({preference.winner for preference in orders}) == 1 for orders in scored), len(scored))


def _mean(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: fmean(each[name] for each in scores) for name in scores[0]}
