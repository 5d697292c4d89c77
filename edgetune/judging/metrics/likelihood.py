"""How well texts are predicted: perplexity, and bits per byte where the tokens differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgetune.errors import DataError
from edgetune.judging.metrics.aggregates import ratio
from edgetune.judging.metrics.metric import Metric, MetricResult
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.likelihood import bits_per_byte, log_perplexity


def same_tokens(candidate: Sequence[Answer], baseline: Sequence[Answer]) -> None:
    """Raise DataError, naming bits_per_byte, when two models split an item's text into different numbers of tokens.

    The answers are to the same items in the same order.
    """
    differing = [
        (left, right) for left, right in zip(candidate, baseline, strict=True) if left.nll_tokens != right.nll_tokens
    ]
    if differing:
        left, right = differing[0]
        raise DataError(
            f"the two models split the texts into different tokens ({left.nll_tokens} and {right.nll_tokens} in item "
            f"{left.id}), so their perplexities cannot be compared",
            remedy="compare bits_per_byte instead (gate: {metric: bits_per_byte})",
        )


def _perplexity(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    tokens = [answer.nll_tokens for answer in answers if answer.nll_tokens is not None]
    if len(tokens) < len(answers):
        raise DataError(
            f"perplexity needs the number of tokens, which {len(answers) - len(tokens)} of {len(answers)} answers lack",
            remedy="measure bits_per_byte instead",
        )
    if not any(tokens):
        raise DataError("perplexity: no text has a token that follows another")
    return _measurement(log_perplexity(_nats(answers), tokens), _nats(answers), tokens)


def _bits_per_byte(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    sizes = [
        len(item.text.encode()) if answer.nll_bytes is None else answer.nll_bytes
        for item, answer in zip(items, answers, strict=True)
    ]
    if not any(sizes):
        raise DataError("bits_per_byte: all texts are empty")
    bits = [nats / math.log(2) for nats in _nats(answers)]
    return _measurement(bits_per_byte(_nats(answers), sizes), bits, sizes)


def _nats(answers: Sequence[Answer]) -> list[float]:
    nats = [answer.nll_nats for answer in answers if answer.nll_nats is not None]
    if len(nats) < len(answers):
        raise DataError(f"{len(answers) - len(nats)} of {len(answers)} answers have no likelihood (nll_nats)")
    return nats


def _measurement(value: float, amounts: Sequence[float], counts: Sequence[int]) -> MetricResult:
    """`value` is all amounts over all counts; an item that counts nothing has none."""
    values = tuple(amount / count if count else None for amount, count in zip(amounts, counts, strict=True))
    return MetricResult(value, values, ratio(np.array(amounts), np.array(counts, dtype=np.float64)))


PERPLEXITY = Metric(
    "perplexity",
    "Perplexity",
    kind="aggregate",
    unit="log",
    higher_is_better=False,
    default_margin=0.02,
    compute=_perplexity,
    tasks=("perplexity",),
    details={"mean": "exp of all nats over all tokens; values are its natural logarithm"},
)

BITS_PER_BYTE = Metric(
    "bits_per_byte",
    "Bits per byte",
    kind="aggregate",
    unit="number",
    higher_is_better=False,
    default_margin=0.01,
    compute=_bits_per_byte,
    tasks=("perplexity",),
    details={"mean": "all bits over all bytes of UTF-8"},
)
