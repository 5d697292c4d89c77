"""Labelled texts, and texts with answers of an encoder-decoder -> token ids in the tokenizer's own frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgetune.data.cut import resolve_length
from edgetune.data.example import Example
from edgetune.data.tokenize import UNSUPERVISED, Encode, TokenizedData, TokenizedExample
from edgetune.errors import DataError
from edgetune.recipe.data import Length


@dataclass(frozen=True)
class Frame:
    """Ids before and after a text: [CLS] and [SEP], nothing and </s>, <s> and nothing."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def cut(self, ids: Sequence[int], limit: int) -> tuple[int, ...]:
        """A framed text cut to `limit` ids; the frame is kept. A limit below the frame's length cuts the frame."""
        if len(ids) <= limit:
            return tuple(ids)
        text = limit - len(self.after)
        return (*ids[:text], *self.after) if text >= len(self.before) else (*self.before, *self.after)[:limit]


def frame_of(encode_whole: Encode) -> Frame:
    """The frame that a tokenizer adds, found by encoding an empty text and a letter."""
    around = encode_whole("")
    letter = encode_whole("a")
    front = 0
    while front < len(around) and letter[front] == around[front]:
        front += 1
    return Frame(tuple(around[:front]), tuple(around[front:]))


def tokenize_texts(
    examples: Sequence[Example], labels: Sequence[str], encode_whole: Encode, max_length: Length
) -> TokenizedData:
    """Inputs of a classification head: the filled prompt or the text alone, and the number of its label in `labels`.

    `encode_whole` adds the tokenizer's special tokens, such as [CLS] and [SEP]; they count in `max_length` and are
    never cut. Every example is kept, in order. Raises DataError naming a row without tokens or with an unknown label.
    """
    whole = [_tokens(example, encode_whole) for example in _some(examples)]
    lengths = tuple(map(len, whole))
    limit = resolve_length(max_length, lengths)
    frame = frame_of(encode_whole)
    numbers = {label: number for number, label in enumerate(labels)}
    tokenized = tuple(
        TokenizedExample(frame.cut(ids, limit), (_number(example, numbers),), example.weight)
        for example, ids in zip(examples, whole, strict=True)
    )
    return TokenizedData(tokenized, limit, sum(length > limit for length in lengths), dropped=0, lengths=lengths)


def tokenize_pairs(
    examples: Sequence[Example], encode_whole: Encode, max_length: Length, max_target_length: Length | None = None
) -> TokenizedData:
    """Inputs of an encoder-decoder: the prompt, and as labels the answer.

    `encode_whole` adds the tokenizer's special tokens, such as </s> after both; they count in `max_length` (of the
    prompt) and `max_target_length` (of the answer; None does not cut it) and are never cut. Every example is kept, in
    order. Raises DataError naming a row without tokens.
    """
    sources = [_tokens(example, encode_whole) for example in _some(examples)]
    targets = [encode_whole(example.answer) for example in examples]
    lengths, target_lengths = tuple(map(len, sources)), tuple(map(len, targets))
    limit = resolve_length(max_length, lengths)
    target_limit = (
        max(target_lengths) if max_target_length is None else resolve_length(max_target_length, target_lengths)
    )
    frame = frame_of(encode_whole)
    tokenized = tuple(
        TokenizedExample(frame.cut(source, limit), frame.cut(target, target_limit), example.weight)
        for example, source, target in zip(examples, sources, targets, strict=True)
    )
    cut = sum(a > limit or b > target_limit for a, b in zip(lengths, target_lengths, strict=True))
    return TokenizedData(tokenized, limit, cut, 0, lengths, target_lengths, target_limit)


def _some(examples: Sequence[Example]) -> Sequence[Example]:
    if not examples:
        raise DataError("there are no examples to tokenize")
    return examples


def _tokens(example: Example, encode_whole: Encode) -> list[int]:
    """The ids of all messages before the answer, as one text."""
    ids = encode_whole("\n\n".join(message.content for message in example.question))
    if not ids:
        raise DataError(
            "the text is empty, and this base adds no special tokens, so there are no tokens to read",
            where=example.where,
            remedy="remove this row, or set data.prompt",
        )
    return ids


def _number(example: Example, known: Mapping[str, int]) -> int:
    if not example.answered:
        return UNSUPERVISED
    if example.label is None or example.label not in known:
        raise DataError(f"has the label {example.label}; known are {', '.join(known)}", where=example.where)
    return known[example.label]
