"""How a model's answers ended: complete, cut off or empty, and with how much reasoning; each has a note."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.judging.results.judgement import Evaluation
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.suite import Suite


@dataclass(frozen=True)
class Endings:
    """Counts of one model's written `answers`; unanswered items are not among them.

    `cut_off` ended at max_tokens, at the context's end or inside their reasoning; `empty` hold nothing but white space;
    `cut_off_and_empty` are both. `with_reasoning` had reasoning, which was told apart from them.
    """

    answers: int
    cut_off: int
    empty: int
    cut_off_and_empty: int
    with_reasoning: int


def count_endings(answers: Sequence[Answer]) -> Endings:
    """How these answers ended."""
    written = [answer for answer in answers if answer.text is not None and answer.unanswered is None]
    return Endings(
        len(written),
        cut_off=sum(answer.is_cut_off for answer in written),
        empty=sum(answer.is_empty for answer in written),
        cut_off_and_empty=sum(answer.is_cut_off and answer.is_empty for answer in written),
        with_reasoning=sum(bool(answer.reasoning) for answer in written),
    )


def tell_endings(role: str, evaluation: Evaluation, suite: Suite) -> tuple[str, ...]:
    """The counts as notes about the candidate or the baseline (`role`)."""
    found = count_endings(evaluation.answers)
    notes = []
    if found.cut_off:
        before = found.cut_off_and_empty
        silent = f", {before} of them before any answer" if before else ""
        notes.append(
            f"{role}: {_of(found.cut_off, found.answers, 'was', 'were')} cut off{silent}. They are measured as they "
            f"are; {_way_out(evaluation, suite)} would let them finish."
        )
    if found.empty:
        notes.append(
            f"{role}: {_of(found.empty, found.answers, 'is', 'are')} empty. They are measured as they are: no answer "
            "is a wrong one."
        )
    if found.with_reasoning:
        notes.append(
            f"{role}: reasoning was separated from {found.with_reasoning} of {found.answers} answers. Metrics and "
            "judges see only what follows it."
        )
    return tuple(notes)


def find_silence(candidate: Evaluation, baseline: Evaluation, suite: Suite) -> tuple[str, ...]:
    """Why a comparison is void: on most items both models were cut off before they answered.

    Two models that never answer are equal on every item, and that must not pass.
    """
    pairs = list(zip(candidate.answers, baseline.answers, strict=True))
    silent = sum(all(answer.is_cut_off and answer.is_empty for answer in pair) for pair in pairs)
    if 2 * silent <= len(pairs):
        return ()
    return (
        f"On {silent} of {len(pairs)} items both models were cut off before any answer, so there is nothing to "
        f"compare; {_way_out(candidate, suite)} would let them answer.",
    )


def _way_out(evaluation: Evaluation, suite: Suite) -> str:
    if evaluation.kind == "outputs":
        return "outputs written with more tokens"
    return f"a generation.max_tokens above {suite.generation.max_tokens}"


def _of(count: int, answers: int, one: str, several: str) -> str:
    return f"{count} of {answers} answers {one if count == 1 else several}"
