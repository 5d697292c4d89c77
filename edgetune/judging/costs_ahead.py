"""What the judges of a suite would cost, before any of them is asked."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.judging.asking.cache import AnswerCache
from edgetune.judging.asking.cost import CostEstimate, estimate
from edgetune.judging.plan import opened_sides, plan_judging
from edgetune.judging.results.evaluate import plan_answers
from edgetune.judging.results.judgement import Evaluation
from edgetune.judging.results.prepared import PreparedSuite, prepare
from edgetune.judging.settings import Settings, opened_cache
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.subject import Subject
from edgetune.judging.suites.suite import Suite

CHARACTERS_PER_TOKEN = 4
"""Of English text, about; the estimate of tokens uses the same."""


@dataclass(frozen=True)
class CostsAhead:
    """One estimate for each judge. `assumed` counts answers that are not generated yet; their maximum length is
    assumed."""

    judges: tuple[CostEstimate, ...]
    assumed: int


def estimate_costs(suite: Suite, model: str, baseline: str | None, settings: Settings) -> CostsAhead:
    """The price of the judges' part of `judge_model`. No judge is asked, and no model.

    Raises what `judge_model` raises for a suite, a model or a judge that cannot be used.
    """
    prepared = prepare(suite, settings.judges, compared=baseline is not None)
    with opened_cache(settings) as cache, opened_sides(prepared, model, baseline) as sides:
        new, assumed = _assume(prepared, sides.candidate, cache)
        old = sides.stored
        if sides.baseline is not None:
            old, more = _assume(prepared, sides.baseline, cache)
            assumed += more
        plan = plan_judging(prepared, new, old)
        estimates = (estimate(plan.requests(judge.repeats), judge, cache) for judge in prepared.judges)
        return CostsAhead(tuple(estimates), assumed)


def _assume(prepared: PreparedSuite, subject: Subject, cache: AnswerCache | None) -> tuple[Evaluation, int]:
    """A model's answers as far as they are known, the others as long as the suite allows, and how many those are."""
    suite, items = prepared.suite, prepared.items
    ahead = plan_answers(suite, items, subject, cache)
    length = suite.generation.max_tokens * CHARACTERS_PER_TOKEN
    answers = {
        item.id: Answer(item.id, text=f"{item.id} {subject.reference} {'word ' * length}"[:length])
        for item in ahead.missing
    }
    answers |= ahead.known
    return Evaluation(
        model=subject.reference,
        kind=subject.kind,
        fingerprint=subject.fingerprint,
        size_bytes=None,
        seconds=None,
        answers=tuple(answers[item.id] for item in items),
        metrics={},
    ), len(ahead.missing)
