"""The token that ends an answer, read off a chat template: what it puts behind an answer that it is given."""

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
    "examples have an answer that ends in no end token, so the model does not learn to stop; let the chat template "
    "write its end-of-turn token or {{ eos_token }} behind an answer"
)
"""What is told of examples of which TokenizedData counts some as `unended`."""


@dataclass(frozen=True)
class AnswerEnd:
    """What a template puts behind the last answer: its `text`, and the first special `token` in it, if there is one.

    `next_turn` is the token that the next turn begins with, where the template ends an answer with none: a model that
    was trained so stops by beginning the user's turn.
    """

    text: str
    token: int | None
    next_turn: int | None = None


def find_answer_end(
    template: ChatTemplate, encode: Callable[[str], list[int]], is_special: Callable[[int], bool]
) -> AnswerEnd | None:
    """Render a conversation with a marker as its answer, and look at what comes behind the marker.

    `is_special` is true of ids that may end an answer. None where the template renders no such conversation, or not
    with its words as they are.
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
    """The ids that may end an answer: of a tokenizer's `added` tokens, all that are not white space."""
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
