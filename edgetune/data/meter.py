"""Lengths of examples in the base's tokens, and the effect of the recipe's limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgetune.data.cut import CutExamples, Offsets, cut_sources, cut_targets, fitting_length
from edgetune.data.example import Example
from edgetune.data.tokenize import TokenizedData
from edgetune.recipe.data import Data, Length, Percentile

PERCENTILES = (50, 80, 90, 95, 99)
"""Reported percentiles of the lengths, in addition to the maximum."""

_WHOLE = Percentile(percentile=100)


@dataclass(frozen=True)
class Meter:
    """The unit of lengths: the base's tokens, or words if no tokenizer is available.

    `offsets` finds the tokens of a text. `tokenize` makes the model's input from examples, cut to a length; without it
    cuts are not reported.
    """

    unit: str
    offsets: Offsets
    tokenize: Callable[[Sequence[Example], Length], TokenizedData] | None


def word_offsets(text: str) -> list[tuple[int, int]]:
    """The start and end of each word, in characters."""
    return [word.span() for word in re.finditer(r"\S+", text)]


WORDS = Meter("words", word_offsets, None)
"""Used if the base's tokenizer is not available."""


@dataclass(frozen=True)
class Limits:
    """A recipe's maximum lengths of the text, the summary and the whole example."""

    source: Length | None
    target: Length | None
    whole: Length


@dataclass(frozen=True)
class CutReport:
    """The effect of one limit of the recipe, resolved to a number of tokens; `dropped_rows` are the first few."""

    field: str
    limit_tokens: int
    cut: int
    lost_tokens: int
    dropped: int = 0
    dropped_rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class LengthReport:
    """Percentiles of lengths, and the effect of each limit.

    `lengths` has `text` and `summary` alone, `example` as the model reads it after those are cut, and `answer` as an
    encoder-decoder writes it. `limits` are the resolved limits. `notes` describe how the chat template reads
    conversations.
    """

    lengths: dict[str, dict[str, int]]
    cuts: tuple[CutReport, ...]
    limits: Limits
    notes: tuple[str, ...] = ()
    unended: int = 0
    """Examples with an answer without an end token; 0 if lengths are counted in words."""


def limits_of(data: Data, meter: Meter) -> Limits:
    """The recipe's limits; none if lengths are counted in words."""
    if meter.tokenize is None:
        return Limits(None, None, _WHOLE)
    return Limits(data.max_source_length, data.max_target_length, data.max_length)


def measure_examples(examples: Sequence[Example], meter: Meter, limits: Limits) -> LengthReport:
    """Measure examples and cut them as training does. Raises DataError if no example fits into the limits."""
    lengths: dict[str, dict[str, int]] = {}
    cuts: list[CutReport] = []
    if all(example.source is not None for example in examples):
        texts = cut_sources(examples, meter.offsets, limits.source or _WHOLE)
        lengths["text"] = _spread(texts.lengths)
        if limits.source is not None:
            examples, limits = texts.examples, replace(limits, source=texts.limit_tokens)
            cuts.append(_cut_report("data.max_source_length", texts))
    if all(example.references for example in examples):
        summaries = cut_targets(examples, meter.offsets, limits.target or _WHOLE)
        lengths["summary"] = _spread(summaries.lengths)
        if limits.target is not None:
            examples, limits = summaries.examples, replace(limits, target=summaries.limit_tokens)
            cuts.append(_cut_report("data.max_target_length", summaries))
    if meter.tokenize is None:
        lengths["example"] = _spread([_counted(example, meter.offsets) for example in examples])
        return LengthReport(lengths, tuple(cuts), limits)
    tokenized = meter.tokenize(examples, limits.whole)
    limit = tokenized.max_length_tokens
    lengths["example"] = _spread(tokenized.lengths)
    if tokenized.target_lengths:
        lengths["answer"] = _spread(tokenized.target_lengths)
    cuts.append(
        CutReport(
            "data.max_length",
            limit,
            tokenized.truncated,
            tokenized.lost_tokens,
            tokenized.dropped,
            tokenized.dropped_rows,
        )
    )
    notes = tokenized.warnings + tokenized.notes
    return LengthReport(lengths, tuple(cuts), replace(limits, whole=limit), notes, tokenized.unended)


def _cut_report(field: str, shorter: CutExamples) -> CutReport:
    return CutReport(field, shorter.limit_tokens, shorter.cut, shorter.lost_tokens)


def _counted(example: Example, offsets: Offsets) -> int:
    return sum(len(offsets(message.content)) for message in example.messages)


def _spread(lengths: Sequence[int]) -> dict[str, int]:
    """Percentile, or max -> length."""
    spread = {str(percentile): fitting_length(lengths, percentile) for percentile in PERCENTILES}
    return {**spread, "max": max(lengths)}
