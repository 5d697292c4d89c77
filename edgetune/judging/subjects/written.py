"""From what a model wrote to its answer, for every kind of model: the reasoning separated, and the label read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgetune.data.reasoning import split_reasoning
from edgetune.judging.subjects.answer import IN_REASONING, Answer
from edgetune.judging.suites.suite import Suite
from edgetune.runtime.labels.reading import parse_label


def written_answer(
    item: str, text: str, suite: Suite, *, reasoning: str = "", finish: str | None = None, **measured: Any
) -> Answer:
    """The answer to the item with this id. Metrics and judges see only what follows the reasoning.

    `text` is all that the model wrote, `reasoning` what an endpoint gave apart from it, `finish` why the text ended and
    `measured` what it took, as fields of Answer. An answer whose text ended inside its reasoning is empty.
    """
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


def separated(answer: Answer) -> Answer:
    """An answer that was stored with its reasoning in the text, without it; any other as it is."""
    if answer.text is None or answer.reasoning is not None:
        return answer
    split = split_reasoning(answer.text)
    finish = answer.finish if split.complete or answer.is_cut_off else IN_REASONING
    return replace(answer, text=split.answer, reasoning=split.reasoning, finish=finish)
