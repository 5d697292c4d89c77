"""Conversations -> token ids and the loss mask over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from edgetune.data.example import Example
from edgetune.data.lengths import resolve_length
from edgetune.data.omissions import explain_refusal, find_omissions
from edgetune.data.places import NAMED
from edgetune.data.template import ChatTemplate, Segment
from edgetune.errors import DataError
from edgetune.recipe.data import Length

UNSUPERVISED = -100
"""The label that torch's cross-entropy ignores."""

Encode = Callable[[str], list[int]]
"""Text to token ids: special tokens written in the text are recognized, none are added."""


@dataclass(frozen=True)
class TokenizedExample:
    """What a model reads, and what it must answer.

    `labels` are, for a decoder, as long as `input_ids`: the same ids where they are supervised, -100 where they are
    not; for an encoder-decoder the ids that the decoder must write; with a classification head the label's number.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    weight: float = 1.0
    """What its loss counts, beside 1.0 of an ordinary example (class weights)."""


@dataclass(frozen=True)
class TokenizedData:
    """Examples ready for training, and what became of the others."""

    examples: tuple[TokenizedExample, ...]
    max_length_tokens: int
    truncated: int
    """Examples that are kept but were cut at the end."""
    dropped: int
    """Examples that are left out, because nothing supervised was left before the cut."""
    lengths: tuple[int, ...] = ()
    """Tokens that each example had before the cut, those left out included."""
    target_lengths: tuple[int, ...] = ()
    """The same of what an encoder-decoder must write; empty for other models, whose examples hold the answer."""
    max_target_length_tokens: int | None = None
    """What those were cut to."""
    dropped_rows: tuple[str, ...] = ()
    """Where the first few of the examples that are left out were read."""
    omitted: dict[str, int] = field(default_factory=dict)
    """What the chat template does, such as `leaves out the tools` -> with how many conversations."""
    reread: int = 0
    """Examples beside those of whole conversations: earlier answers that the template writes otherwise there."""

    @property
    def lost_tokens(self) -> int:
        """Tokens behind the cuts, and those of the examples that are left out."""
        return sum(self.lengths) - sum(len(example.input_ids) for example in self.examples)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the conversations the model does not learn, or not as it should."""
        return tuple(
            f"the chat template {what} ({_counted(count, 'conversation')})" for what, count in self.omitted.items()
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What else a user should know of how the chat template reads the conversations."""
        if not self.reread:
            return ()
        answers = _counted(self.reread, "earlier answer")
        return (
            f"{answers} {'is' if self.reread == 1 else 'are'} learned in a copy of the conversation that ends there, "
            "because the chat template writes it otherwise when later turns follow",
        )


def tokenize_examples(
    examples: Sequence[Example], template: ChatTemplate, encode: Encode, max_length: Length
) -> TokenizedData:
    """Render, tokenize and cut examples to `max_length` tokens, or to the length that a share of them fits into.

    A conversation is one tokenized example, and one more for each answer that the template writes otherwise when later
    turns follow. Each segment of a rendering is tokenized on its own and the ids are joined: the ids of a prompt are
    then exactly those that inference sends, whatever the answer begins with.

    Raises DataError naming the row when the template refuses it or leaves out what its answers need, when there are no
    examples, and when none has a supervised token within `max_length`.
    """
    if not examples:
        raise DataError("there are no examples to tokenize")
    omitted: Counter[str] = Counter()
    places: list[str] = []
    whole: list[TokenizedExample] = []
    for example in examples:
        for segments in _read(example, template, omitted):
            whole.append(_tokenize(segments, encode, example.weight))
            places.append(example.where)
    lengths = [len(example.input_ids) for example in whole]
    limit = resolve_length(max_length, lengths)
    kept: list[tuple[TokenizedExample, int]] = []
    dropped: list[str] = []
    for tokenized, length, where in zip(whole, lengths, places, strict=True):
        shorter = _cut(tokenized, limit)
        if any(label != UNSUPERVISED for label in shorter.labels):
            kept.append((shorter, length))
        else:
            dropped.append(where)
    if not kept:
        raise DataError(
            f"all {len(whole)} examples are longer than max_length, {limit} tokens; the shortest needs {min(lengths)}",
            remedy="raise data.max_length",
        )
    return TokenizedData(
        examples=tuple(example for example, _ in kept),
        max_length_tokens=limit,
        truncated=sum(length > limit for _, length in kept),
        dropped=len(dropped),
        dropped_rows=tuple(dropped[:NAMED]),
        lengths=tuple(lengths),
        omitted=dict(omitted.most_common()),
        reread=len(whole) - len(examples),
    )


def _read(example: Example, template: ChatTemplate, omitted: Counter[str]) -> tuple[tuple[Segment, ...], ...]:
    try:
        try:
            readings = template.readings(example.messages, tools=example.tools)
        except DataError:
            explain_refusal(example, template)
            raise
        omitted.update(find_omissions(example, template, readings))
    except DataError as problem:
        raise DataError(problem.what, where=example.where, remedy=problem.remedy) from problem
    return readings


def _tokenize(segments: Sequence[Segment], encode: Encode, weight: float) -> TokenizedExample:
    input_ids: list[int] = []
    labels: list[int] = []
    for segment in segments:
        ids = encode(segment.text)
        input_ids += ids
        labels += ids if segment.supervised else [UNSUPERVISED] * len(ids)
    return TokenizedExample(tuple(input_ids), tuple(labels), weight)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _cut(example: TokenizedExample, limit: int) -> TokenizedExample:
    return replace(example, input_ids=example.input_ids[:limit], labels=example.labels[:limit])
