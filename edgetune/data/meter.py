"""How long examples are as a base reads them, and what the recipe's limits take of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgetune.data.cut import CutExamples, Offsets, cut_sources, cut_targets
from edgetune.data.example import Example
from edgetune.data.lengths import fitting_length
from edgetune.data.tokenize import TokenizedData
from edgetune.recipe.data import Data, Length, Percentile

PERCENTILES = (50, 80, 90, 95, 99)
"""Of the lengths, in percent; what the longest needs is told too."""

_WHOLE = Percentile(percentile=100)


@dataclass(frozen=True)
class Meter:
    """How lengths are measured: in tokens as a base reads its examples, or in words where no tokenizer is at hand.

    `offsets` finds the tokens of a text, `tokenize` makes of examples what the model reads, cut to a length; without it
    nothing can be said about cutting.
    """

    unit: str
    offsets: Offsets
    tokenize: Callable[[Sequence[Example], Length], TokenizedData] | None


def word_offsets(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends, in characters."""
    return [word.span() for word in re.finditer(r"\S+", text)]


WORDS = Meter("words", word_offsets, None)
"""For a base whose tokenizer is not at hand."""


@dataclass(frozen=True)
class Limits:
    """A recipe's maximum lengths of the text, the summary and the whole example."""

    source: Length | None
    target: Length | None
    whole: Length


@dataclass(frozen=True)
class CutReport:
    """What one limit of the recipe, resolved to a number of tokens, takes away; `dropped_rows` are the first few."""

    field: str
    limit_tokens: int
    cut: int
    lost_tokens: int
    dropped: int = 0
    dropped_rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class LengthReport:
    """Percentiles of lengths by what was measured, and what each limit takes.

    Measured are `text` and `summary` by themselves, `example` as the model reads it after those are cut, and `answer`
    as an encoder-decoder writes it. `limits` are the numbers that percentiles come to with these examples. `notes` tell
    how the chat template reads conversations.
    """

    lengths: dict[str, dict[str, int]]
    cuts: tuple[CutReport, ...]
    limits: Limits
    notes: tuple[str, ...] = ()
    unended: int = 0
    """Examples with an answer that ends in no end token; 0 where only words can be counted."""


def limits_of(data: Data, meter: Meter) -> Limits:
    """The recipe's limits; none where only words can be counted."""
    if meter.tokenize is None:
        return Limits(None, None, _WHOLE)
    return Limits(data.max_source_length, data.max_target_length, data.max_length)


def measure_examples(examples: Sequence[Example], meter: Meter, limits: Limits) -> LengthReport:
    """Measure examples and shorten them as training does, and as evaluation does for its loss.

    Raises DataError when no example fits into the limits.
    """
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
