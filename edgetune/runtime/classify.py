"""Which of some labels a model gives to a conversation: by the likelihood of each, or by letting it answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgetune.data.example import Message
from edgetune.data.reasoning import opened_reasoning, split_reasoning
from edgetune.errors import DataError, UsageError
from edgetune.runtime.label_scoring import Scorable, score_all
from edgetune.runtime.labels.reading import parse_label
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
    """By generation: the answer as it was written, without the reasoning before it."""


def classify_all(
    session: Session, conversations: Sequence[Sequence[Message]], labels: Sequence[str]
) -> Iterator[Prediction]:
    """For each conversation, the label that the model finds likeliest as its answer; the first when several are.

    Many conversations are read in one batch, and what they have in common once; a prediction depends on its own
    conversation alone (see `label_scoring`). Predictions come in the order of the conversations. Raises UsageError,
    before anything is read, when one of them does not fit into the context.
    """
    questions = []
    for number, messages in enumerate(conversations, start=1):
        question = label_question(session, messages, labels)
        require_fit(session, question.context_tokens, where=f"conversation {number}")
        questions.append(question)
    yield from predict_all(session, questions, labels)


def classify_by_likelihood(session: Session, messages: Sequence[Message], labels: Sequence[str]) -> Prediction:
    """The same for one conversation. Raises UsageError when it does not fit into the context."""
    return next(predict_all(session, [label_question(session, messages, labels)], labels))


def label_question(session: Session, messages: Sequence[Message], labels: Sequence[str]) -> Scorable:
    """A conversation's ids, and those of each label as its answer, end-of-turn markup included.

    They are the ids that training used: the segments of the chat template, each tokenized on its own. Raises DataError
    when the template changes the prompt with the answer.
    """
    split = [_split_answer(session, messages, label) for label in labels]
    prompt = split[0][0]
    if any(other != prompt for other, _ in split):
        raise DataError(
            "the chat template changes the prompt with the answer, so labels cannot be compared",
            where=session.path,
            remedy="score by generation instead",
        )
    prefix = [token for text in prompt for token in session.tokenize(text)]
    return Scorable(prefix, [session.tokenize(answer) for _, answer in split])


def predict_all(session: Session, questions: Sequence[Scorable], labels: Sequence[str]) -> Iterator[Prediction]:
    """The predictions for questions that `label_question` made of conversations with these labels."""
    for scores in score_all(session, questions):
        log_probabilities = dict(zip(labels, scores, strict=True))
        yield Prediction(max(log_probabilities, key=log_probabilities.__getitem__), log_probabilities, None)


def require_fit(session: Session, tokens: int, *, where: str) -> None:
    """Raise UsageError naming `where` when its tokens are more than the context holds."""
    if tokens > session.context_tokens:
        raise UsageError(
            f"has {tokens} tokens with its question, and the context holds {session.context_tokens}",
            where=where,
            remedy="shorten its text, or take a model that was trained on a longer context",
        )


def classify_by_generation(
    session: Session, messages: Sequence[Message], labels: Sequence[str], max_tokens: int = 16
) -> Prediction:
    """The label that the model's likeliest answer names.

    Raises UsageError when the prompt does not fit into the context.
    """
    rendered = session.template.render(messages, add_generation_prompt=True)
    prompt = session.tokenize(rendered)
    pieces = session.generate(prompt, sampling=GREEDY, max_tokens=max_tokens, reproducible=True, marks=True)
    answer = split_reasoning(opened_reasoning(rendered) + "".join(pieces)).answer
    return Prediction(parse_label(answer, labels), None, answer)


def _split_answer(session: Session, messages: Sequence[Message], answer: str) -> tuple[tuple[str, ...], str]:
    """The texts before an assistant's answer, and that of the answer with its end-of-turn markup."""
    segments = session.template.segments([*messages, Message("assistant", answer)])
    last = max(index for index, segment in enumerate(segments) if segment.supervised)
    return tuple(segment.text for segment in segments[:last]), segments[last].text
