"""What became of every item: better, worse or the same, so that the worst regressions can be shown first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgetune.judging.grading.grades import EQUAL_ANSWERS, Grade, Preference
from edgetune.judging.grading.summaries import mean_preferences
from edgetune.judging.report.metrics_table import metric_facts
from edgetune.judging.results.judgement import Judgement
from edgetune.judging.results.prepared import PREFERENCE

Status = Literal["worse", "better", "same", "right", "wrong", ""]
Values = Sequence[float | None]

_UNIT_RANGE = {"share": 1.0, "points": 100.0, "grade": 4.0, "log": 1.0, "number": 1.0}
"""How far apart two values of a unit can lie, so that several metrics can be averaged; for open scales a plain 1."""

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


def deciding_metrics(judgement: Judgement) -> tuple[str, ...]:
    """The metrics by which items are ordered: those of the gate that have a value per item, else the first that has."""
    verdict = judgement.verdict
    gated = [comparison.metric for comparison in verdict.comparisons] if verdict else []
    chosen = [name for name in gated if name == PREFERENCE or _has_values(judgement, name)]
    others = [name for name in judgement.candidate.metrics if _has_values(judgement, name)]
    return tuple(chosen or others[:1])


def values_by_item(judgement: Judgement, name: str) -> tuple[Values | None, Values]:
    """A metric's values of the baseline (None without one) and of the candidate, by item. Preferences compare: what
    stands for the baseline there is 0."""
    if name == PREFERENCE:
        means = mean_preferences(judgement.preferences)
        now: Values = [means.get(item.id) for item in judgement.items]
        return [None if value is None else 0.0 for value in now], now
    before = None if judgement.baseline is None else judgement.baseline.metrics[name].values
    return before, judgement.candidate.metrics[name].values


def find_changes(judgement: Judgement) -> tuple[Change, ...]:
    """All items, in their order."""
    metrics = deciding_metrics(judgement)
    columns = [_sizes(judgement, name) for name in metrics]
    flaws = _flaws(judgement)
    paired = judgement.baseline is not None
    tells_right = bool(metrics) and all(metric_facts(name).kind == "accuracy" for name in metrics)
    changes = []
    for place, item in enumerate(judgement.items):
        known = [column[place] for column in columns]
        sizes = [size for size in known if size is not None]
        size = sum(sizes) / len(sizes) if sizes else None
        unscored, degenerate = flaws.get(item.id, (False, False))
        changes.append(Change(place, size, _status(size, paired=paired, tells_right=tells_right), unscored, degenerate))
    return tuple(changes)


def preference_text(preferences: Sequence[Preference]) -> str:
    """What the verdicts on one pair of answers come to, in words."""
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


def _sizes(judgement: Judgement, name: str) -> Values:
    """Changes (or, without a baseline, values) by item in units of the metric's range; less is worse."""
    facts = metric_facts(name)
    scale = (-1 if facts.higher_is_better is False else 1) / _UNIT_RANGE[facts.unit]
    before, now = values_by_item(judgement, name)
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
    """A pair of equal answers is spared the judge, too, but neither is degenerate for that."""
    return verdict.degenerate is not None and verdict.degenerate != EQUAL_ANSWERS
