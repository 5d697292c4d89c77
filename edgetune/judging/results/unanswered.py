"""Items that a model's endpoint refuses for good: a content filter blocks them, or they are too long for it.

Such an item counts as an empty answer: wrong, or the lowest value of a metric or a judge. But what the old model
refused must not make the new one look better: the gate leaves out the items that the baseline left unanswered. Notes
say so, with the reasons.
"""

from __future__ import annotations

from edgetune.judging.gate.wording import commonest
from edgetune.judging.results.judgement import Evaluation
from edgetune.judging.subjects.answer import Answer

COUNTED = "which count as wrong or lowest"
LEFT_OUT = "which are left out of the comparison"


def unanswered_items(evaluation: Evaluation) -> frozenset[str]:
    """The ids of the items that a model left unanswered."""
    return frozenset(answer.id for answer in _unanswered(evaluation))


def unanswered_remarks(candidate: Evaluation, baseline: Evaluation | None) -> tuple[str, ...]:
    """A sentence on each side that left items unanswered, for the verdict."""
    return tuple(f"{text}." for text, _ in _told(candidate, baseline))


def unanswered_notes(candidate: Evaluation, baseline: Evaluation | None) -> tuple[str, ...]:
    """The same with the reasons, the most frequent first."""
    return tuple(f"{text}: {reasons}." for text, reasons in _told(candidate, baseline))


def _told(candidate: Evaluation, baseline: Evaluation | None) -> list[tuple[str, str]]:
    """Each side's finding and its reasons."""
    told = []
    for role, side, effect in (("candidate", candidate, COUNTED), ("baseline", baseline, LEFT_OUT)):
        missing = () if side is None else _unanswered(side)
        if side is not None and missing:
            text = f"The {role} left {len(missing):,} of {len(side.answers):,} items unanswered, {effect}"
            told.append((text, commonest(answer.unanswered or "" for answer in missing)))
    return told


def _unanswered(evaluation: Evaluation) -> tuple[Answer, ...]:
    return tuple(answer for answer in evaluation.answers if answer.unanswered is not None)
