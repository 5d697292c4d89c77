"""Measuring a judge against people, with the prompt, the orders and the rules of a judgement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from edgetune.judging.asking.cost import Costs
from edgetune.judging.asking.request import JudgeRequest
from edgetune.judging.calibration.bars import Bars, find_failures
from edgetune.judging.calibration.figures import JudgedItem, SetReport, grade_figures, pair_figures
from edgetune.judging.calibration.gold import GoldItem, GoldKind, GoldSet
from edgetune.judging.grading.grades import Ask, Grade, Preference
from edgetune.judging.grading.pairwise import ComparingTask
from edgetune.judging.grading.pointwise import GradingTask
from edgetune.judging.grading.prompt import PROMPT_VERSION
from edgetune.judging.grading.summaries import (
    Share,
    mean_preferences,
    mean_scores,
    order_consistency,
    unscored_share,
)
from edgetune.judging.statistics.accuracy import wilson_interval
from edgetune.judging.statistics.agreement import Agreement
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.judge_file import Judge, judge_hash
from edgetune.judging.suites.rubric import Rubric

DEFAULT_BARS = Bars()
NO_COSTS = Costs()

Grading = Literal["pointwise", "pairwise"]


@dataclass(frozen=True)
class Calibration:
    """A judge measured against people. It failed where there are `failures`, which say why in sentences."""

    judge: str
    judge_hash: str
    rubric: str
    rubric_hash: str
    prompt_version: str
    grading: Grading
    created: str
    data: dict[str, str]
    sets: tuple[SetReport, ...]
    together: SetReport
    bars: Bars
    failures: tuple[str, ...]
    costs: Costs = NO_COSTS

    @property
    def passed(self) -> bool:
        return not self.failures


def calibration_requests(
    sets: Sequence[GoldSet], rubric: Rubric, repeats: int, grading: Grading = "pairwise"
) -> list[JudgeRequest]:
    """The questions that `calibrate` asks, without asking them."""
    return [
        request
        for gold in sets
        for task in ([_comparing(gold, rubric)] if _is_pairwise(gold, grading) else _grading(gold, rubric))
        for request in task.requests(repeats)
    ]


def calibrate(
    judge: Judge,
    sets: Sequence[GoldSet],
    rubric: Rubric,
    ask: Ask,
    *,
    created: str,
    grading: Grading = "pairwise",
    bars: Bars = DEFAULT_BARS,
) -> Calibration:
    """Measure a judge against people's votes.

    Pairs are compared in both orders or, with grading pointwise, each answer is graded by itself and the higher mean
    over the criteria is preferred. Single answers are always graded. `created` is the time in UTC (ISO 8601).
    """
    judged = [_judge_set(judge, each, rubric, ask, grading) for each in sets]
    kind = sets[0].kind
    reports = tuple(_report(each.name, kind, done, each.left_out) for each, done in zip(sets, judged, strict=True))
    together = reports[0]
    if len(sets) > 1:
        left_out = sum(each.left_out for each in sets)
        together = _report("all together", kind, _Judged.joined(judged), left_out)
    return Calibration(
        judge=judge.name,
        judge_hash=judge_hash(judge),
        rubric=rubric.name,
        rubric_hash=rubric.sha256(),
        prompt_version=PROMPT_VERSION,
        grading=grading if kind == "pairs" else "pointwise",
        created=created,
        data={each.name: each.sha256 for each in sets},
        sets=reports,
        together=together,
        bars=bars,
        failures=find_failures(together, kind, bars),
    )


@dataclass(frozen=True)
class _Judged:
    """A judge's results on some items, and its verdicts."""

    items: tuple[JudgedItem, ...]
    by_rule: int
    grades: tuple[Grade, ...] = ()
    preferences: tuple[Preference, ...] = ()

    @staticmethod
    def joined(parts: Sequence[_Judged]) -> _Judged:
        return _Judged(
            tuple(item for part in parts for item in part.items),
            sum(part.by_rule for part in parts),
            tuple(grade for part in parts for grade in part.grades),
            tuple(preference for part in parts for preference in part.preferences),
        )


def _is_pairwise(gold: GoldSet, grading: Grading) -> bool:
    return gold.kind == "pairs" and grading == "pairwise"


def _comparing(gold: GoldSet, rubric: Rubric) -> ComparingTask:
    return ComparingTask([each.item for each in gold.items], _side(gold, 0), _side(gold, 1), rubric)


def _grading(gold: GoldSet, rubric: Rubric) -> list[GradingTask]:
    """One task for the first answers of all items and, of pairs, one for the second ones."""
    items, sides = [each.item for each in gold.items], range(len(gold.items[0].answers))
    return [GradingTask(items, _side(gold, side), rubric) for side in sides]


def _side(gold: GoldSet, side: int) -> list[Answer]:
    return [Answer(each.item.id, text=each.answers[side]) for each in gold.items]


def _judge_set(judge: Judge, gold: GoldSet, rubric: Rubric, ask: Ask, grading: Grading) -> _Judged:
    if _is_pairwise(gold, grading):
        preferences = _comparing(gold, rubric).verdicts(judge.name, judge.repeats, ask)
        verdicts, positions = _signs(mean_preferences(preferences)), _positions(preferences)
        by_rule = {each.item for each in preferences if each.degenerate is not None}
        judged = _asked(gold.items, by_rule, verdicts, positions)
        return _Judged(judged, len(by_rule), preferences=preferences)
    graded = [task.verdicts(judge.name, judge.repeats, ask) for task in _grading(gold, rubric)]
    means = [{item: fmean(scores.values()) for item, scores in mean_scores(each).items()} for each in graded]
    if gold.kind == "pairs":
        first, second = means
        verdicts = _signs({item: first[item] - second[item] for item in first if item in second})
    else:
        verdicts = means[0]
    grades = tuple(grade for each in graded for grade in each)
    by_rule = {grade.item for grade in grades if grade.degenerate is not None}
    return _Judged(_asked(gold.items, by_rule, verdicts, {}), len(by_rule), grades=grades)


def _asked(
    items: Sequence[GoldItem], by_rule: Set[str], verdicts: Mapping[str, float], positions: Mapping[str, float]
) -> tuple[JudgedItem, ...]:
    """The items that the judge was asked about, without those that rules decide."""
    return tuple(
        JudgedItem(each, verdicts.get(each.item.id), positions.get(each.item.id))
        for each in items
        if each.item.id not in by_rule
    )


def _signs(values: dict[str, float]) -> dict[str, float]:
    """1, -1 or 0; means that differ by rounding alone are the same."""
    return {item: 0.0 if abs(value) < 1e-9 else 1.0 if value > 0 else -1.0 for item, value in values.items()}


def _positions(preferences: Sequence[Preference]) -> dict[str, float]:
    places: dict[str, list[float]] = {}
    for each in preferences:
        if each.degenerate is None and each.winner is not None:
            place = 0.0 if each.winner == "tie" else 1.0 if each.order.startswith(each.winner) else -1.0
            places.setdefault(each.item, []).append(place)
    return {item: fmean(values) for item, values in places.items()}


def _report(name: str, kind: GoldKind, judged: _Judged, left_out: int) -> SetReport:
    figures = pair_figures(judged.items) if kind == "pairs" else grade_figures(judged.items)
    for figure, share in (
        ("consistency", order_consistency(judged.preferences)),
        ("unscored", unscored_share([*judged.grades, *judged.preferences])),
    ):
        if share.of:
            figures[figure] = _of_share(share)
    scored = sum(item.verdict is not None for item in judged.items)
    return SetReport(name, len(judged.items), scored, judged.by_rule, left_out, figures)


def _of_share(share: Share) -> Agreement:
    return Agreement(share.count / share.of, wilson_interval(share.count, share.of), share.of)
