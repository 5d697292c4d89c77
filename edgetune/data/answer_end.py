"""The token that a chat template writes after an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edgetune.data.example import Message
from edgetune.data.template import ChatTemplate
from edgetune.errors import DataError, RecipeError

_QUESTION, _ANSWER, _NEXT = "marker of a question", "marker of an answer", "marker of the next turn"

NEVER_ENDS = (
    "examples have an answer without an end token, so the model does not learn to stop; change the chat template so "
    "that it writes its end-of-turn token or {{ eos_token }} after an answer"
)
"""The warning about the examples that TokenizedData counts as `unended`."""


@dataclass(frozen=True)
class AnswerEnd:
    """What a template writes after the last answer: the `text` and its first special `token`, if any.

    `next_turn` is the first token of the next turn, if there is no `token`: such a model stops by beginning the user's
    turn.
    """

    text: str
    token: int | None
    next_turn: int | None = None


def find_answer_end(
    template: ChatTemplate, encode: Callable[[str], list[int]], is_special: Callable[[int], bool]
) -> AnswerEnd | None:
    """Render a conversation whose answer is a marker, and return the text after the marker.

    `is_special` is true for ids that may end an answer. None if the template refuses or changes the conversation.
    """
    for opening in ((), (Message("system", "Answer."),)):
        talk = (*opening, Message("user", _QUESTION), Message("assistant", _ANSWER))
        with suppress(DataError, RecipeError):
            _before, found, text = template.render(talk).rpartition(_ANSWER)
            if not found:
                return None
            token = next(filter(is_special, encode(text)), None)
            return AnswerEnd(text, token, None if token is not None else _next_turn(template, talk, encode, is_special))
    return None


def marks_in(added: Mapping[int, Any]) -> frozenset[int]:
    """The ids that may end an answer: a tokenizer's `added` tokens that are not white space."""
    return frozenset(number for number, token in added.items() if token.content.strip())


def _next_turn(
    template: ChatTemplate,
    talk: tuple[Message, ...],
    encode: Callable[[str], list[int]],
    is_special: Callable[[int], bool],
) -> int | None:
    with suppress(DataError, RecipeError):
        rendered = template.render((*talk, Message("user", _NEXT)))
        between = rendered.rpartition(_ANSWER)[2].partition(_NEXT)[0]
        return next(filter(is_special, encode(between.lstrip())[:1]), None)
    return None
