"""What a reader of a judgement should know of its answers and models, as sentences.

An item that an endpoint refuses for good (a content filter blocks it, or it is too long) counts as an empty answer:
wrong, or the lowest value of a metric or a judge. But what the old model refused must not make the new one look better:
the gate leaves out the items that the baseline left unanswered.
"""

from __future__ import annotations

from edgetune.judging.gate.wording import commonest
from edgetune.judging.results.endings import count_endings
from edgetune.judging.results.judgement import Evaluation, Role
from edgetune.judging.results.prepared import PreparedSuite
from edgetune.judging.suites.suite import Suite


def notes_on(prepared: PreparedSuite, candidate: Evaluation, baseline: Evaluation | None) -> list[str]:
    """Notes on items without an answer, on cut off and empty answers, on reasoning, and on models that may be one."""
    sides: list[tuple[Role, Evaluation]] = [("candidate", candidate)]
    sides += [] if baseline is None else [("baseline", baseline)]
    return [
        *(f"{text}: {reasons}." for text, reasons in _unanswered(candidate, baseline)),
        *(note for role, side in sides for note in _notes_on_endings(role, side, prepared.suite)),
        *([] if baseline is None else _notes_on_identity(candidate, baseline)),
    ]


def notes_on_judges(prepared: PreparedSuite) -> list[str]:
    """A note on every judge without a certificate."""
    return [
        f"{judge.name} has no certificate of its agreement with people; `edgetune judge calibrate` measures it."
        for judge in prepared.judges
        if judge.certificate is None
    ]


def unanswered_remarks(candidate: Evaluation, baseline: Evaluation | None) -> tuple[str, ...]:
    """A sentence on each side that left items unanswered, for the verdict."""
    return tuple(f"{text}." for text, _ in _unanswered(candidate, baseline))


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


def _unanswered(candidate: Evaluation, baseline: Evaluation | None) -> list[tuple[str, str]]:
    """A finding on each side that left items unanswered, and the reasons, the most frequent first."""
    found = []
    for role, side, effect in (
        ("candidate", candidate, "which count as wrong or lowest"),
        ("baseline", baseline, "which are left out of the comparison"),
    ):
        if side is not None and side.unanswered:
            text = f"The {role} left {len(side.unanswered):,} of {len(side.answers):,} items unanswered, {effect}"
            found.append((text, commonest(side.unanswered.values())))
    return found


def _notes_on_endings(role: Role, evaluation: Evaluation, suite: Suite) -> list[str]:
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
    return notes


def _notes_on_identity(candidate: Evaluation, baseline: Evaluation) -> list[str]:
    """A note on two sides that may be one model, without a proof of it."""
    if candidate.fingerprint != baseline.fingerprint or candidate.is_same_model(baseline):
        return []
    seen = {
        "outputs": "Candidate and baseline hold the same outputs. Equal outputs do not prove that one model wrote them",
        "endpoint": "Candidate and baseline have the same address. It does not prove that one model answered for both",
    }
    text = seen.get(candidate.kind, "Nothing proves that candidate and baseline are one model")
    return [f"{text}, so the gate treats them as two models: only enough items can show that nothing is lost."]


def _way_out(evaluation: Evaluation, suite: Suite) -> str:
    if evaluation.kind == "outputs":
        return "outputs written with more tokens"
    return f"a generation.max_tokens above {suite.generation.max_tokens}"


def _of(count: int, answers: int, one: str, several: str) -> str:
    return f"{count} of {answers} answers {one if count == 1 else several}"
