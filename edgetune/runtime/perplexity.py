"""How well a model predicts a given text: the negative log-likelihood of its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgetune.data.example import Message
from edgetune.runtime.classify import label_question
from edgetune.runtime.context import log_total
from edgetune.runtime.session import Session


@dataclass(frozen=True)
class Likelihood:
    """The sum of -log p over `tokens` tokens, in `nats`, and the size of the whole text in `bytes` of UTF-8."""

    nats: float
    tokens: int
    bytes: int


def text_likelihood(session: Session, text: str) -> Likelihood:
    """The likelihood of a plain text after the vocabulary's beginning-of-text token.

    Where the vocabulary asks for none, the first token has nothing before it and is not scored.
    """
    ids = [*session.vocabulary.beginning, *session.vocabulary.tokenize(text)]
    return _likelihood(session, ids, 1, text)


def answer_likelihood(session: Session, messages: Sequence[Message], answer: str) -> Likelihood:
    """The likelihood of an assistant's answer, with its end-of-turn markup, after a conversation.

    The ids are those that training used. Raises DataError when the template cannot be split so.
    """
    question = label_question(session.vocabulary, messages, [answer])
    return _likelihood(session, [*question.prefix, *question.continuations[0]], len(question.prefix), answer)


def windows(tokens: int, first: int, context: int) -> Iterator[tuple[int, int, int]]:
    """Where to read a text of so many tokens, of which those from number `first` on are scored.

    Gives, for each window, where it begins, its first scored token, and where it ends. What is longer than the context
    is read in windows that advance by half of it, so that every token is scored once, the first ones after whatever is
    before them and all others after at least half a context.
    """
    done = first
    while done < tokens:
        start = 0 if tokens <= context else max(0, done - context // 2)
        end = min(tokens, start + context)
        yield start, done, end
        done = end


def _likelihood(session: Session, ids: Sequence[int], first: int, text: str) -> Likelihood:
    """The likelihood of the ids from number `first` on."""
    nats = 0.0
    for start, done, end in windows(len(ids), first, session.context.capacity):
        # The last token of a window has nothing after it to predict.
        for index, logits in session.context.read(ids[start : end - 1], wanted_from=done - 1 - start):
            nats += log_total(logits) - float(logits[ids[start + index + 1]])
    return Likelihood(nats, max(0, len(ids) - first), len(text.encode("utf-8", "replace")))
