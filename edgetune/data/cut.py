"""Cuts a text to a number of tokens and leaves the words around it whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgetune.data.example import Example
from edgetune.data.lengths import resolve_length
from edgetune.recipe.data import Length

Offsets = Callable[[str], Sequence[tuple[int, int]]]
"""Text -> where each of its tokens begins and ends in it, in characters; special tokens are not added."""


@dataclass(frozen=True)
class CutExamples:
    """Examples with shorter texts, in their order.

    `limit_tokens` is what they were cut to: give it to the evaluation's examples where it came from a percentile of the
    training's. `lengths` are the tokens that each text had before.
    """

    examples: tuple[Example, ...]
    limit_tokens: int
    lengths: tuple[int, ...]

    @property
    def cut(self) -> int:
        """How many texts were longer."""
        return sum(length > self.limit_tokens for length in self.lengths)

    @property
    def lost_tokens(self) -> int:
        """How many tokens were behind the cuts."""
        return sum(max(0, length - self.limit_tokens) for length in self.lengths)


def cut_sources(examples: Sequence[Example], offsets: Offsets, max_source_length: Length) -> CutExamples:
    """Cut the text that each prompt asks about; the prompt is filled anew, and stays whole. Examples must have sources.

    A percentile is one of these examples' texts. Raises DataError when it is of none at all.
    """
    return _cut(examples, offsets, max_source_length, _text, Example.with_text)


def cut_targets(examples: Sequence[Example], offsets: Offsets, max_target_length: Length) -> CutExamples:
    """Cut the answer that each example teaches; `references`, which summaries are compared with, stay whole.

    A percentile is one of these examples' answers. Raises DataError when it is of none at all.
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
    """As much of the beginning of `text` as `count` tokens hold.

    A word that is cut may be tokenized otherwise than it was as a whole, into more tokens even; then less is kept. A
    character of several tokens is kept or left out as a whole.
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
