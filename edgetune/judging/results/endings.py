"""How a model's answers ended: complete, cut off or empty, and with how much reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.judging.subjects.answer import Answer


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
