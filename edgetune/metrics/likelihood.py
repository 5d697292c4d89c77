"""How well a model predicts texts, from the sum of their tokens' negative log-likelihoods in nats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgetune.errors import DataError
from edgetune.metrics.aggregates import ratio
from edgetune.metrics.metric import Metric, MetricResult
from edgetune.metrics.samples import Samples


def log_perplexity(nats: Sequence[float], tokens: Sequence[int]) -> float:
    """The natural logarithm of the perplexity: all nats over all tokens, so that long texts count for more.

    It depends on what a token is: only models that split the texts into the same tokens can be compared by it.
    Source: https://doi.org/10.1121/1.2016299. Raises ValueError without tokens.
    """
    if sum(tokens) <= 0:
        raise ValueError("there is no token")
    return math.fsum(nats) / sum(tokens)


def bits_per_byte(nats: Sequence[float], sizes_bytes: Sequence[int]) -> float:
    """All nats, in bits, over all bytes of UTF-8: comparable whatever the tokens are.

    Source: https://arxiv.org/abs/2101.00027, section 3.1. Raises ValueError without bytes.
    """
    if sum(sizes_bytes) <= 0:
        raise ValueError("there is no byte")
    return math.fsum(nats) / math.log(2) / sum(sizes_bytes)


def _perplexity(samples: Samples) -> MetricResult:
    nats, tokens = samples.column("nll_nats"), samples.column("nll_tokens")
    if not any(tokens):
        raise DataError("perplexity: no text has a token that follows another")
    return _result(log_perplexity(nats, tokens), nats, tokens)


def _bits_per_byte(samples: Samples) -> MetricResult:
    nats, sizes = samples.column("nll_nats"), samples.column("nll_bytes")
    if not any(sizes):
        raise DataError("bits_per_byte: all texts are empty")
    return _result(bits_per_byte(nats, sizes), [one / math.log(2) for one in nats], sizes)


def _result(value: float, amounts: Sequence[float], counts: Sequence[int]) -> MetricResult:
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
    formula=_perplexity,
    needs=("nll_nats", "nll_tokens"),
    tasks=("perplexity",),
    per_token=True,
    details={"mean": "exp of all nats over all tokens; values are its natural logarithm"},
)

BITS_PER_BYTE = Metric(
    "bits_per_byte",
    "Bits per byte",
    kind="aggregate",
    unit="number",
    higher_is_better=False,
    default_margin=0.01,
    formula=_bits_per_byte,
    needs=("nll_nats", "nll_bytes"),
    tasks=("perplexity",),
    details={"mean": "all bits over all bytes of UTF-8"},
)
