"""The texts that metrics of written answers read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgetune.errors import DataError
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item


def texts_of(answers: Sequence[Answer]) -> list[str]:
    """What the model wrote. Raises DataError when an answer has no text."""
    texts = [answer.text for answer in answers if answer.text is not None]
    if len(texts) < len(answers):
        missing = next(answer.id for answer in answers if answer.text is None)
        raise DataError(
            f"{len(answers) - len(texts)} of {len(answers)} answers have no text, such as that to {missing}"
        )
    return texts


def by_reference(
    items: Sequence[Item], answers: Sequence[Answer], score: Callable[[str, Sequence[str]], float]
) -> list[float | None]:
    """The score of each answer against its item's references; None where an item has none, 0 where nobody answered."""
    unanswered = [answer.unanswered is not None for answer in answers]
    return [
        None if not item.references else 0.0 if nobody else score(text, item.references)
        for text, item, nobody in zip(texts_of(answers), items, unanswered, strict=True)
    ]


def lengths_of(answers: Sequence[Answer], count: Callable[[str], int]) -> list[float | None]:
    """How long each answer is; None where nobody answered."""
    texts = zip(texts_of(answers), answers, strict=True)
    return [float(count(text)) if answer.unanswered is None else None for text, answer in texts]
