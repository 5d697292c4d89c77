"""What a model wrote -> its answer, for every kind of model under test: the reasoning apart, and the label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgetune.data.reasoning import split_reasoning
from edgetune.judging.answer import IN_REASONING, Answer
from edgetune.judging.suite import Suite


def written_answer(
    item: str, text: str, suite: Suite, *, reasoning: str = "", finish: str | None = None, **measured: Any
) -> Answer:
    """The answer to the item with this id. Metrics and judges see what stands behind the reasoning, and it alone.

    `text` is all that the model wrote, `reasoning` what an endpoint gave apart from it, `finish` why the text ended and
    `measured` what it took, as fields of Answer. An answer whose text ended inside its reasoning is empty.
    """
    from edgetune.runtime.classify import parse_label

    split = split_reasoning(text, reasoning)
    if not split.complete and finish not in ("length", "context"):
        finish = IN_REASONING
    return Answer(
        id=item,
        text=split.answer,
        predicted=parse_label(split.answer, suite.labels) if suite.task == "classify" else None,
        reasoning=split.reasoning,
        finish=finish,
        **measured,
    )


def read_again(answer: Answer, suite: Suite) -> Answer:
    """An answer that an earlier version has stored, with its reasoning told apart where it still holds some."""
    if answer.text is None or answer.reasoning is not None or split_reasoning(answer.text).reasoning is None:
        return answer
    read = written_answer(answer.id, answer.text, suite, finish=answer.finish)
    return replace(answer, text=read.text, predicted=read.predicted, reasoning=read.reasoning, finish=read.finish)
