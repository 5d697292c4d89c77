"""What the judges of a suite would cost, before any of them is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetune.judging.asking.cache import AnswerCache
from edgetune.judging.asking.cost import CostEstimate, estimate
from edgetune.judging.asking.request import JudgeRequest
from edgetune.judging.grading.jury import requests_ahead
from edgetune.judging.results.baseline import is_report, read_baseline
from edgetune.judging.results.evaluate import known_answers
from edgetune.judging.results.judgement import control_name
from edgetune.judging.results.prepared import PreparedSuite, prepare
from edgetune.judging.settings import Settings, opened_cache
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.registry import open_subject
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.judge_file import Judge
from edgetune.judging.suites.suite import Suite

CHARACTERS_PER_TOKEN = 4
"""Of English text, about; the estimate of tokens uses the same."""


@dataclass(frozen=True)
class CostsAhead:
    """One estimate for each judge. `assumed` counts answers that are not there yet: as long as the suite allows."""

    judges: tuple[CostEstimate, ...]
    assumed: int


@dataclass(frozen=True)
class _Side:
    """A model's answers, and whether its grades are there already."""

    answers: tuple[Answer, ...]
    control: str
    """See `control_name`."""
    graded: bool = False


def estimate_costs(suite: Suite, model: str, baseline: str | None, settings: Settings) -> CostsAhead:
    """What judging would take. No judge is asked, and no model either: answers that are not remembered are assumed.

    Raises what `judge_model` raises for a suite, a model or a judge that cannot be.
    """
    prepared = prepare(suite, settings.judges, compared=baseline is not None)
    with opened_cache(settings) as cache:
        new, assumed = _answers(prepared, model, cache)
        old = None
        if baseline is not None and is_report(baseline):
            stored = read_baseline(Path(baseline), prepared)
            old = _Side(stored.answers, stored.fingerprint, graded=bool(stored.grades))
        elif baseline is not None:
            old, missing = _answers(prepared, baseline, cache)
            assumed += missing
        return CostsAhead(
            tuple(estimate(_requests(prepared, judge, new, old), judge, cache) for judge in prepared.judges), assumed
        )


def _requests(prepared: PreparedSuite, judge: Judge, new: _Side, old: _Side | None) -> list[JudgeRequest]:
    """All that one judge would be asked."""
    return requests_ahead(
        prepared,
        judge,
        new.answers,
        None if old is None else old.answers,
        control=new.control,
        graded=old is not None and old.graded,
    )


def _answers(prepared: PreparedSuite, reference: str, cache: AnswerCache | None) -> tuple[_Side, int]:
    """A model's answers as far as they are known, the others assumed, and how many those are."""
    suite, items = prepared.suite, prepared.items
    with open_subject(reference) as subject:
        subject.check(items, suite)
        known = known_answers(suite, items, subject, cache)
        if subject.kind == "outputs":
            known = {answer.id: answer for answer in subject.answers(items, suite)}
        missing = [item for item in items if item.id not in known]
        assumed = _assume(missing, suite, reference)
        answers = tuple(known.get(item.id) or assumed[item.id] for item in items)
        return _Side(answers, control_name(subject.kind, subject.fingerprint, answers)), len(missing)


def _assume(items: Sequence[Item], suite: Suite, reference: str) -> dict[str, Answer]:
    """Answers as long as the suite allows, each of its own."""
    length = suite.generation.max_tokens * CHARACTERS_PER_TOKEN
    return {item.id: Answer(item.id, text=f"{item.id} {reference} {'word ' * length}"[:length]) for item in items}
