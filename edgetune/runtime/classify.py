"""Which of some labels a model gives to a conversation, by the likelihood of each as its answer."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.data.example import Message
from edgetune.errors import DataError, UsageError
from edgetune.runtime.label_scoring import Scorable, score
from edgetune.runtime.session import Session
from edgetune.runtime.vocabulary import Vocabulary


def label_question(vocabulary: Vocabulary, messages: Sequence[Message], labels: Sequence[str]) -> Scorable:
    """A conversation's ids, and those of each label as its answer, end-of-turn markup included.

    They are the ids that training used: the segments of the chat template, each tokenized on its own. Raises DataError
    when the template changes the prompt with the answer.
    """
    split = [vocabulary.template.split_answer(messages, label) for label in labels]
    prompt = split[0][0]
    if any(other != prompt for other, _ in split):
        raise DataError(
            "the chat template changes the prompt with the answer, so labels cannot be compared",
            where=vocabulary.file.path,
            remedy="score by generation instead",
        )
    prefix = [token for text in prompt for token in vocabulary.tokenize(text)]
    return Scorable(prefix, [vocabulary.tokenize(answer) for _, answer in split])


def score_labels(session: Session, question: Scorable, labels: Sequence[str]) -> dict[str, float]:
    """Each label's log-probability in nats, for a question that `label_question` made with these labels.

    Raises UsageError when it does not fit into the context.
    """
    return dict(zip(labels, score(session.context, question), strict=True))


def likeliest(scores: dict[str, float]) -> str:
    """The label with the highest score; the first when several have it."""
    return max(scores, key=scores.__getitem__)


def require_fit(session: Session, tokens: int, *, where: str) -> None:
    """Raise UsageError naming `where` when its tokens are more than the context holds."""
    if tokens > session.context.capacity:
        raise UsageError(
            f"has {tokens} tokens with its question, and the context holds {session.context.capacity}",
            where=where,
            remedy="shorten its text, or take a model that was trained on a longer context",
        )
