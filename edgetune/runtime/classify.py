"""Which of some labels a model gives to a conversation: by the likelihood of each, or by letting it answer."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.data.example import Message
from edgetune.errors import DataError
from edgetune.runtime.sampling import GREEDY
from edgetune.runtime.session import Session


@dataclass(frozen=True)
class Prediction:
    """A label, and what it was read from."""

    label: str | None
    """None when the answer names no label, or several."""
    log_probabilities: dict[str, float] | None
    """By likelihood: each label's log-probability after the prompt, its end-of-turn markup included, in nats."""
    text: str | None
    """By generation: the answer as it was written."""


def classify_by_likelihood(session: Session, messages: Sequence[Message], labels: Sequence[str]) -> Prediction:
    """The label that the model finds likeliest as its answer; the first of them when several are.

    The ids of prompt and answer are those that training used: the segments of the chat template, each tokenized on its
    own. Raises UsageError when the prompt does not fit into the context.
    """
    answers = [_split_answer(session, messages, label) for label in labels]
    prefix = answers[0][0]
    if any(other != prefix for other, _ in answers):
        raise DataError(
            "the chat template changes the prompt with the answer, so labels cannot be compared",
            where=session.path,
            remedy="score by generation instead",
        )
    scores = session.score(prefix, [answer for _, answer in answers])
    log_probabilities = dict(zip(labels, scores, strict=True))
    return Prediction(max(log_probabilities, key=log_probabilities.__getitem__), log_probabilities, None)


def classify_by_generation(
    session: Session, messages: Sequence[Message], labels: Sequence[str], max_tokens: int = 16
) -> Prediction:
    """The label that the model's likeliest answer names.

    Raises UsageError when the prompt does not fit into the context.
    """
    prompt = session.tokenize(session.template.render(messages, add_generation_prompt=True))
    session.feed(prompt, reproducible=True)
    text = "".join(session.generate(prompt, sampling=GREEDY, max_tokens=max_tokens))
    return Prediction(parse_label(text, labels), None, text)


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that `text` is, but for case and punctuation around it; else the only one that it has as a word."""
    bare = text.strip(string.whitespace + string.punctuation)
    if bare in labels:
        return bare
    same = [label for label in labels if label.casefold() == bare.casefold()]
    if len(same) == 1:
        return same[0]
    contained = _contained(text, labels)
    return contained[0] if len(contained) == 1 else None


def _contained(text: str, labels: Sequence[str]) -> list[str]:
    """The labels that occur as whole words. Longer ones are looked for first: "very positive" is no "positive"."""
    found = []
    for label in sorted(labels, key=len, reverse=True):
        text, count = re.subn(rf"(?<!\w){re.escape(label)}(?!\w)", "\0", text, flags=re.IGNORECASE)
        if count:
            found.append(label)
    return found


def _split_answer(session: Session, messages: Sequence[Message], answer: str) -> tuple[list[int], list[int]]:
    """The ids before an assistant's answer, and those of the answer with its end-of-turn markup."""
    segments = session.template.segments([*messages, Message("assistant", answer)])
    last = max(index for index, segment in enumerate(segments) if segment.supervised)
    prefix = [token for segment in segments[:last] for token in session.tokenize(segment.text)]
    return prefix, session.tokenize(segments[last].text)
