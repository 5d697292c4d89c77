"""The questions of an evaluation as token ids, in batches of about the same length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from edgetune.data.example import Example
from edgetune.data.template import ChatTemplate
from edgetune.data.tokenize import Encode
from edgetune.events import ProgressHandle

TOKENS_PER_BATCH = 2048
"""Without gradients this needs less memory than a training step, and larger batches are hardly faster."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Question:
    """A prompt (ids) and the ids of each answer that may follow it, end-of-turn markup included."""

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]


def ask(example: Example, answers: Sequence[str], template: ChatTemplate, encode: Encode) -> Question:
    """The question of an example's prompt: which of `answers` follows.

    The ids are those of training and of `edgetune classify`: each segment of the template is tokenized on its own.
    """
    split = [template.split_answer(example.question, answer, tools=example.tools) for answer in answers]
    prompt = tuple(token for text in split[0][0] for token in encode(text))
    return Question(prompt, tuple(tuple(encode(text)) for _, text in split))


def in_batches(
    asked: Sequence[Asked],
    tokens: Callable[[Asked], int],
    work: Callable[[list[Asked]], Sequence[Answer]],
    progress: ProgressHandle,
    *,
    limit: int = TOKENS_PER_BATCH,
    alike: bool = False,
) -> list[Answer]:
    """The answers of `work` to each batch of what is `asked`, in the order of `asked`; `progress` counts them.

    The longest come first, by `tokens`. Padded to its longest question, a batch stays within `limit` tokens. With
    `alike`, its questions are all of one length.
    """
    lengths = [tokens(question) for question in asked]
    answers: dict[int, Answer] = {}
    for places in _batches(lengths, limit, alike=alike):
        for place, answer in zip(places, work([asked[place] for place in places]), strict=True):
            answers[place] = answer
            progress.advance()
    return [answers[place] for place in range(len(lengths))]


def _batches(lengths: Sequence[int], limit: int, *, alike: bool) -> Iterator[list[int]]:
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        longest = lengths[batch[0]] if batch else 0
        if batch and (longest * (len(batch) + 1) > limit or (alike and lengths[place] < longest)):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def likeliest(logits: Tensor, targets: Tensor, questions: Sequence[Question]) -> list[int]:
    """The number of each question's likeliest answer; of equal ones the first.

    logits (n, vocabulary) predict targets (n,), the tokens of all answers to all questions in order.
    """
    scores = log_likelihoods(logits, targets, questions)
    return [max(range(len(row)), key=row.__getitem__) for row in scores]


def log_likelihoods(logits: Tensor, targets: Tensor, questions: Sequence[Question]) -> list[list[float]]:
    """The log-likelihood in nats of each answer to each question. The arguments are those of `likeliest`."""
    tokens = -nn.functional.cross_entropy(logits, targets, reduction="none").double()
    lengths = [len(answer) for question in questions for answer in question.answers]
    values = iter(answer.sum().item() for answer in tokens.split(lengths))
    return [[next(values) for _ in question.answers] for question in questions]
