"""Conversations -> token ids and the loss mask over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from edgetune.data.cut import resolve_length
from edgetune.data.example import Example
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
    """A model's input ids and labels.

    `labels` of a decoder are as long as `input_ids`: the supervised ids, and -100 elsewhere. For an encoder-decoder
    they are the ids of the answer, with a classification head the label's number.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    weight: float = 1.0
    """The weight of its loss (class weights)."""


@dataclass(frozen=True)
class TokenizedData:
    """Tokenized examples, with counts of those that were cut or left out."""

    examples: tuple[TokenizedExample, ...]
    max_length_tokens: int
    truncated: int
    """Kept examples that were cut at the end."""
    dropped: int
    """Examples that are left out, because no supervised token remained."""
    lengths: tuple[int, ...] = ()
    """Tokens of each example before the cut, including those left out."""
    target_lengths: tuple[int, ...] = ()
    """The same for the answers of an encoder-decoder; empty for other models."""
    max_target_length_tokens: int | None = None
    """The limit of the answers."""
    dropped_rows: tuple[str, ...] = ()
    """The places of the first few examples that are left out."""
    omitted: dict[str, int] = field(default_factory=dict)
    """Omission of the chat template, such as `leaves out the tools` -> number of conversations."""
    reread: int = 0
    """Additional examples, for earlier answers that the template writes differently in the whole conversation."""
    unended: int = 0
    """Examples with an answer without an end token, before any cut: a model trained on them does not learn to stop."""

    @property
    def lost_tokens(self) -> int:
        """Tokens that were cut off or belong to examples that are left out."""
        return sum(self.lengths) - sum(len(example.input_ids) for example in self.examples)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Omissions of the chat template, as messages."""
        return tuple(
            f"the chat template {what} ({_counted(count, 'conversation')})" for what, count in self.omitted.items()
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Further information on the chat template, as messages."""
        if not self.reread:
            return ()
        answers = _counted(self.reread, "earlier answer")
        return (
            f"{answers} {'is' if self.reread == 1 else 'are'} learned in a copy of the conversation that ends there, "
            "because the chat template writes it differently when later turns follow",
        )


def tokenize_examples(
    examples: Sequence[Example],
    template: ChatTemplate,
    encode: Encode,
    max_length: Length,
    ends: Collection[int] | None = None,
) -> TokenizedData:
    """Render, tokenize and cut examples to `max_length` tokens, or to the length that a share of them fits into.

    A conversation is one tokenized example, and one more for each answer that the template writes differently when
    later turns follow. Each segment of a rendering is tokenized alone and the ids are joined, so that the ids of a
    prompt are exactly those of inference. `ends` are the tokens that may end an answer (see `marks_in`); without them
    `unended` is 0.

    Raises DataError naming the row if the template refuses it or leaves out a part that its answers need, and if no
    example has a supervised token within `max_length`.
    """
    if not examples:
        raise DataError("there are no examples to tokenize")
    omitted: Counter[str] = Counter()
    is_ended = _end_check(encode, ends)
    unended = 0
    places: list[str] = []
    whole: list[TokenizedExample] = []
    for example in examples:
        for segments in _read(example, template, omitted):
            tokenized, ended = _tokenize(segments, encode, example.weight, is_ended)
            unended += not ended
            whole.append(tokenized)
            places.append(example.where)
    lengths = [len(example.input_ids) for example in whole]
    limit = resolve_length(max_length, lengths)
    kept: list[tuple[TokenizedExample, int]] = []
    dropped: list[str] = []
    for one, length, where in zip(whole, lengths, places, strict=True):
        shorter = _cut(one, limit)
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
        unended=unended,
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


def _tokenize(
    segments: Sequence[Segment], encode: Encode, weight: float, is_ended: Callable[[str, Sequence[int]], bool]
) -> tuple[TokenizedExample, bool]:
    """The example, and whether each of its answers has an end token."""
    input_ids: list[int] = []
    labels: list[int] = []
    ended = True
    for segment in segments:
        ids = encode(segment.text)
        input_ids += ids
        labels += ids if segment.supervised else [UNSUPERVISED] * len(ids)
        ended = ended and (not segment.supervised or is_ended(segment.text, ids))
    return TokenizedExample(tuple(input_ids), tuple(labels), weight), ended


def _end_check(encode: Encode, ends: Collection[int] | None) -> Callable[[str, Sequence[int]], bool]:
    """Returns a check of an answer's text and ids: does it end in one of `ends`, without regard to white space?"""
    if ends is None:
        return lambda _text, _ids: True
    count_tokens = cache(lambda text: len(encode(text)))

    def is_ended(text: str, ids: Sequence[int]) -> bool:
        behind = text[len(text.rstrip()) :]
        last = ids[-1 - (count_tokens(behind) if behind else 0) :]
        return any(token in ends for token in last)

    return is_ended


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _cut(example: TokenizedExample, limit: int) -> TokenizedExample:
    return replace(example, input_ids=example.input_ids[:limit], labels=example.labels[:limit])
