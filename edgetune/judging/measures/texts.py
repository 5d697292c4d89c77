"""The texts that metrics of written answers read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgetune.errors import DataError
from edgetune.judging.answer import Answer
from edgetune.judging.items import Item


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
    """The score of each answer against its item's references; None where an item has none."""
    pairs = zip(texts_of(answers), items, strict=True)
    return [score(text, item.references) if item.references else None for text, item in pairs]
