"""What a model is asked at an evaluation, as token ids, in batches of about the same length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgetune.data.example import Example, Message
from edgetune.data.template import ChatTemplate
from edgetune.data.tokenize import Encode
from edgetune.errors import RecipeError

TOKENS_PER_BATCH = 2048
"""Without gradients this takes less memory than an ordinary training step, and larger batches are hardly quicker."""


@dataclass(frozen=True)
class Question:
    """A prompt (ids) and the ids of each answer that may follow it, end-of-turn markup included."""

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]


def ask(example: Example, answers: Sequence[str], template: ChatTemplate, encode: Encode) -> Question:
    """The question that an example's prompt puts: which of `answers` comes next.

    The ids are those of training and of `edgetune classify`: the segments of the template, each tokenized on its own.
    Raises RecipeError when the template writes another prompt for another answer.
    """
    split = [_split(example, answer, template, encode) for answer in answers]
    prompt = split[0][0]
    if any(other != prompt for other, _ in split):
        raise RecipeError(
            "the chat template changes the prompt with the answer, so that labels cannot be compared",
            where="data.template",
            remedy="set it to alpaca or to a Jinja file",
        )
    return Question(prompt, tuple(ids for _, ids in split))


def batches(lengths: Sequence[int], limit: int = TOKENS_PER_BATCH) -> Iterator[list[int]]:
    """Places in `lengths` (tokens), longest first, in batches that padded to their longest stay within `limit`."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > limit:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def likeliest(logits: Tensor, targets: Tensor, questions: Sequence[Question]) -> list[int]:
    """Of each question the number of the answer with the highest log-likelihood, the first where several have it.

    logits (n, vocabulary) predict targets (n,), the tokens of all answers to all questions in their order.
    """
    log_likelihoods = -nn.functional.cross_entropy(logits, targets, reduction="none")
    lengths = [len(answer) for question in questions for answer in question.answers]
    values = iter(float(tokens.sum()) for tokens in log_likelihoods.double().split(lengths))
    scores = [[next(values) for _ in question.answers] for question in questions]
    return [max(range(len(row)), key=row.__getitem__) for row in scores]


def _split(
    example: Example, answer: str, template: ChatTemplate, encode: Encode
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    segments = template.segments([*example.messages[:-1], Message("assistant", answer)])
    last = max(place for place, segment in enumerate(segments) if segment.supervised)
    prompt = [token for segment in segments[:last] for token in encode(segment.text)]
    return tuple(prompt), tuple(encode(segments[last].text))
