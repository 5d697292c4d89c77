"""What the page's script shows of the items: plain values, every number already written as people read it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from edgetune.judging.grading.grades import Grade, Preference
from edgetune.judging.report.changes import Change, deciding_metrics, find_changes, preference_text, worst_first
from edgetune.judging.report.document import json_text
from edgetune.judging.report.metrics_table import item_value_text
from edgetune.judging.results.judgement import Evaluation, Judgement
from edgetune.judging.statistics.quantity import ComparedMetric
from edgetune.judging.suites.items import Item
from edgetune.visible_text import visible

SHOWN_ITEMS = 3000
"""A page holds at most so many items, the worst; a browser opens that many at once."""

SHOWN_CHARACTERS = 8000
"""Of one text. All of it is in report.json."""

SHOWN_CHARACTERS_IN_ALL = 15_000_000
"""Of all items together: what a phone opens in a few seconds."""

SHOWN_REASONING = 2000
"""Characters of a model's reasoning: it is folded, and often many times as long as the answer."""


def page_items(judgement: Judgement) -> dict[str, Any]:
    """The items, worst first, and the names of their metrics and sides.

    Keys are short words, for they are repeated in every item. Texts hold no invisible characters (see `visible`).
    """
    metrics = [judgement.compared[name] for name, one in judgement.candidate.metrics.items() if one.values]
    columns = [_Side(role, evaluation, metrics, judgement.compared) for role, evaluation in judgement.sides]
    preferences: dict[str, list[Preference]] = defaultdict(list)
    for preference in judgement.preferences:
        preferences[preference.item].append(preference)
    main = [metric for metric in deciding_metrics(judgement) if not metric.of_pairs]
    changes = worst_first(find_changes(judgement))
    return {
        "sides": [{"role": side.role, "name": visible(side.evaluation.name)} for side in columns],
        "metrics": [metric.title for metric in metrics],
        "main": [metrics.index(metric) for metric in main],
        "paired": judgement.baseline is not None,
        "total": len(judgement.items),
        "totals": _totals(changes),
        "items": list(
            _within_room(
                _item(judgement, judgement.items[change.place], change, columns, preferences)
                for change in changes[:SHOWN_ITEMS]
            )
        ),
    }


def _totals(changes: Sequence[Change]) -> dict[str, int]:
    """How many items each filter of the page finds."""
    totals = Counter[str](change.status for change in changes)
    flaws = {name: sum(getattr(change, name) for change in changes) for name in ("unscored", "degenerate")}
    return {**totals, **flaws}


def _within_room(items: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The first items, as many as the page has room for."""
    room = SHOWN_CHARACTERS_IN_ALL
    for item in items:
        yield item
        room -= len(json_text(item))
        if room < 0:
            return


def data_block(value: Any) -> str:
    """JSON that can stand inside a <script> element: no < or & is left, so that nothing can end or open one."""
    text = json_text(value)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


class _Side:
    """One model's part of the items, found by place."""

    def __init__(
        self,
        role: str,
        evaluation: Evaluation,
        metrics: Sequence[ComparedMetric],
        compared: Mapping[str, ComparedMetric],
    ) -> None:
        self.role, self.evaluation, self._compared = role, evaluation, compared
        known = evaluation.metrics
        self.values = [(one, known[one.name].values if one.name in known else ()) for one in metrics]
        self.grades: dict[str, list[Grade]] = defaultdict(list)
        for grade in evaluation.grades:
            self.grades[grade.item].append(grade)

    def shown(self, place: int) -> dict[str, Any]:
        answer = self.evaluation.answers[place]
        values = [item_value_text(values[place] if values else None, metric) for metric, values in self.values]
        return _filled(
            label=None if answer.predicted is None else visible(answer.predicted),
            text=None if answer.text is None else _cut(answer.text),
            reasoning=_cut(answer.reasoning or "", SHOWN_REASONING),
            unanswered=_said(answer.unanswered),
            finish=answer.finish if answer.finish not in (None, "stop") else None,
            values=values,
            grades=[_grade(grade, self._compared) for grade in self.grades.get(answer.id, ())],
        )


def _item(
    judgement: Judgement,
    item: Item,
    change: Change,
    sides: Sequence[_Side],
    preferences: dict[str, list[Preference]],
) -> dict[str, Any]:
    context = (
        []
        if judgement.suite.task == "classify"
        else [
            [message.role, _cut(message.content)]
            for message in item.messages
            if message.content not in (item.text, judgement.suite.generation.system)
        ]
    )
    return _filled(
        id=visible(item.id),
        place=change.place,
        where=visible(item.where),
        text=_cut(item.text),
        context=context,
        gold=None if item.gold is None else visible(item.gold),
        references=[_cut(reference) for reference in item.references],
        cluster=None if item.cluster is None else visible(item.cluster),
        status=change.status,
        unknown=change.size is None,
        unscored=change.unscored,
        degenerate=change.degenerate,
        sides=[side.shown(change.place) for side in sides],
        preferences=[
            _verdict(preference, order=preference.order, winner=preference.winner)
            for preference in preferences.get(item.id, ())
        ],
        preferred=preference_text(preferences[item.id]) if item.id in preferences else None,
    )


def _grade(grade: Grade, compared: Mapping[str, ComparedMetric]) -> dict[str, Any]:
    scores = [[compared[name].title, f"{score:.3g}"] for name, score in (grade.scores or {}).items()]
    return _verdict(grade, scores=scores)


def _verdict(one: Grade | Preference, **found: Any) -> dict[str, Any]:
    return _filled(
        judge=_by(one), **found, reason=_reason(one), problem=_said(one.problem), spared=_said(one.degenerate)
    )


def _by(verdict: Grade | Preference) -> str:
    judge = visible(verdict.judge)
    return f"{judge}, repeat {verdict.repeat + 1}" if verdict.repeat else judge


def _reason(verdict: Grade | Preference) -> str:
    """The judge's reason; empty where no judge was asked, which `spared` explains."""
    return "" if verdict.degenerate is not None else _cut(verdict.reason)


def _said(text: str | None) -> str | None:
    return None if text is None else _cut(text)


def _cut(text: str, most: int = SHOWN_CHARACTERS) -> str:
    shown = visible(text)
    if len(shown) <= most:
        return shown
    return f"{shown[:most]}… ({len(shown) - most:,} more characters are in report.json)"


def _filled(**values: Any) -> dict[str, Any]:
    """The values that are not empty. The number 0 counts as a value."""
    return {key: value for key, value in values.items() if value or (value == 0 and value is not False)}
