"""How every item changed: better, worse or the same, so that the worst regressions can be shown first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgetune.judging.grading.grades import EQUAL_ANSWERS, Grade, Preference
from edgetune.judging.grading.summaries import mean_preferences
from edgetune.judging.results.judgement import Judgement
from edgetune.judging.results.pairing import Values, values_by_item
from edgetune.judging.statistics.quantity import ComparedMetric
from edgetune.metrics.units import scale_length

Status = Literal["worse", "better", "same", "right", "wrong", ""]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Change:
    """One item of a judgement. `size` orders items, lowest first: the mean change (with a baseline) or value (without)
    over the metrics that decide, turned so that less is worse; None where the item has no value. `status` is worse,
    better or same with a baseline; right or wrong without one where that is what is measured; empty otherwise.
    """

    place: int
    size: float | None
    status: Status
    unscored: bool
    degenerate: bool


def deciding_metrics(judgement: Judgement) -> tuple[ComparedMetric, ...]:
    """The metrics by which items are ordered: those of the gate that have a value per item, else the first that has."""
    verdict = judgement.verdict
    gated = [comparison.metric for comparison in verdict.comparisons] if verdict else []
    names = [name for name in gated if judgement.compared[name].of_pairs or _has_values(judgement, name)]
    names = names or [name for name in judgement.candidate.metrics if _has_values(judgement, name)][:1]
    return tuple(judgement.compared[name] for name in names)


def sides_by_item(judgement: Judgement, metric: ComparedMetric) -> tuple[Values | None, Values]:
    """A metric's values of the baseline (None without one) and of the candidate, by item."""
    won = mean_preferences(judgement.preferences)
    before, now = values_by_item(metric, judgement.items, judgement.baseline, judgement.candidate, won)
    return None if judgement.baseline is None else before, now


def find_changes(judgement: Judgement) -> tuple[Change, ...]:
    """All items, in their order."""
    metrics = deciding_metrics(judgement)
    columns = [_sizes(judgement, metric) for metric in metrics]
    flaws = _flaws(judgement)
    paired = judgement.baseline is not None
    tells_right = bool(metrics) and all(metric.kind == "accuracy" for metric in metrics)
    changes = []
    for place, item in enumerate(judgement.items):
        known = [column[place] for column in columns]
        sizes = [size for size in known if size is not None]
        size = sum(sizes) / len(sizes) if sizes else None
        unscored, degenerate = flaws.get(item.id, (False, False))
        changes.append(Change(place, size, _status(size, paired=paired, tells_right=tells_right), unscored, degenerate))
    return tuple(changes)


def preference_text(preferences: Sequence[Preference]) -> str:
    """The verdicts on one pair of answers, summarized in words."""
    means = list(mean_preferences(preferences).values())
    if not means:
        return "unscored"
    if abs(means[0]) == 1:
        return f"{'candidate' if means[0] > 0 else 'baseline'} preferred"
    if means[0]:
        return f"{'candidate' if means[0] > 0 else 'baseline'} preferred by some"
    return "tie" if {preference.winner for preference in preferences} == {"tie"} else "undecided"


def worst_first(changes: Sequence[Change]) -> list[Change]:
    """The greatest losses first; items without a value last."""
    return sorted(changes, key=lambda change: (change.size is None, change.size or 0.0, change.place))


def _has_values(judgement: Judgement, name: str) -> bool:
    return all(name in side.metrics and side.metrics[name].values for _, side in judgement.sides)


def _sizes(judgement: Judgement, metric: ComparedMetric) -> Values:
    """Changes (or, without a baseline, values) by item in units of the metric's range; less is worse."""
    scale = (-1 if metric.higher_is_better is False else 1) / (scale_length(metric.unit) or 1.0)
    before, now = sides_by_item(judgement, metric)
    if before is None:
        return [None if value is None else scale * value for value in now]
    pairs = zip(now, before, strict=True)
    return [None if ours is None or theirs is None else scale * (ours - theirs) for ours, theirs in pairs]


def _status(size: float | None, *, paired: bool, tells_right: bool) -> Status:
    if size is None:
        return ""
    if paired:
        return "same" if abs(size) < _ROUNDING else "worse" if size < 0 else "better"
    if tells_right:
        return "right" if size > 1 - _ROUNDING else "wrong"
    return ""


def _flaws(judgement: Judgement) -> dict[str, tuple[bool, bool]]:
    """By item: has it an unscored verdict, and has it a degenerate answer."""
    flaws: dict[str, tuple[bool, bool]] = defaultdict(lambda: (False, False))
    grades = [grade for _, side in judgement.sides for grade in side.grades]
    verdicts: list[Grade | Preference] = [*grades, *judgement.preferences]
    for verdict in verdicts:
        unscored, degenerate = flaws[verdict.item]
        flaws[verdict.item] = (unscored or verdict.problem is not None, degenerate or _is_degenerate(verdict))
    return flaws


def _is_degenerate(verdict: Grade | Preference) -> bool:
    """A judge is not asked about a pair of equal answers either, but they are not degenerate."""
    return verdict.degenerate is not None and verdict.degenerate != EQUAL_ANSWERS
