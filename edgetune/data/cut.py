"""Lengths that a share of the examples fits into, and texts cut to a length without cutting the prompt around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from edgetune.data.example import Example
from edgetune.errors import DataError
from edgetune.recipe.data import Length, Percentile

Offsets = Callable[[str], Sequence[tuple[int, int]]]
"""Text -> the start and end of each token in characters, without special tokens."""


def resolve_length(limit: Length, lengths: Sequence[int]) -> int:
    """A limit as a number; a percentile is the smallest length that this share of `lengths` fits into.

    Raises DataError for a percentile without lengths.
    """
    if not isinstance(limit, Percentile):
        return limit
    if not lengths:
        raise DataError(f"there are no examples, so percentile {limit.percentile:g} has no length")
    return fitting_length(lengths, limit.percentile)


def fitting_length(lengths: Sequence[int], percentile: float) -> int:
    """The smallest length that at least this share of `lengths`, in percent, fits into."""
    share = Fraction(str(percentile)) / 100  # exact: in floats, 64.4 % of 250 examples are more than 161
    return sorted(lengths)[math.ceil(len(lengths) * share) - 1]


@dataclass(frozen=True)
class CutExamples:
    """Examples with shorter texts, in their order.

    `limit_tokens` is the resolved limit, also for the evaluation's examples if it was a percentile. `lengths` are the
    tokens of each text before the cut.
    """

    examples: tuple[Example, ...]
    limit_tokens: int
    lengths: tuple[int, ...]

    @property
    def cut(self) -> int:
        """Number of texts that were cut."""
        return sum(length > self.limit_tokens for length in self.lengths)

    @property
    def lost_tokens(self) -> int:
        """Number of tokens that were cut off."""
        return sum(max(0, length - self.limit_tokens) for length in self.lengths)


def cut_sources(examples: Sequence[Example], offsets: Offsets, max_source_length: Length) -> CutExamples:
    """Cut the text of each prompt and fill the prompt again. Examples must have sources.

    A percentile refers to these examples' texts. Raises DataError for a percentile without examples.
    """
    return _cut(examples, offsets, max_source_length, _text, Example.with_text)


def cut_targets(examples: Sequence[Example], offsets: Offsets, max_target_length: Length) -> CutExamples:
    """Cut the answer of each example, but not its `references`.

    A percentile refers to these examples' answers. Raises DataError for a percentile without examples.
    """
    return _cut(examples, offsets, max_target_length, lambda example: example.answer, Example.with_answer)


def _cut(
    examples: Sequence[Example],
    offsets: Offsets,
    limit: Length,
    text_of: Callable[[Example], str],
    with_text: Callable[[Example, str], Example],
) -> CutExamples:
    lengths = tuple(len(offsets(text_of(example))) for example in examples)
    number = resolve_length(limit, lengths)
    shorter = tuple(
        with_text(example, first_tokens(text_of(example), offsets, number)) if length > number else example
        for example, length in zip(examples, lengths, strict=True)
    )
    return CutExamples(shorter, number, lengths)


def first_tokens(text: str, offsets: Offsets, count: int) -> str:
    """The beginning of `text` that `count` tokens hold.

    A cut word may have other tokens than the whole word, even more of them; then less is kept. A character of several
    tokens is kept or left out as a whole.
    """
    places = offsets(text)
    while text and len(places) > count:
        keep = count
        while keep and places[keep][0] < places[keep - 1][1]:
            keep -= 1
        text = text[: places[keep - 1][1]] if keep else ""
        places = offsets(text)
        count -= len(places) > count
    return text


def _text(example: Example) -> str:
    assert example.source is not None
    return example.source.text
