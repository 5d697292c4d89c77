"""How well a model predicts texts: perplexity, and bits per byte for models with different tokens."""

from __future__ import annotations

import math

import numpy as np

from edgetune.errors import DataError
from edgetune.metrics.aggregates import ratio, value_of
from edgetune.metrics.metric import Formula, Metric, MetricResult
from edgetune.metrics.samples import Samples


def _all_nats_over(counted: str, lacking: str, *, nats: float = 1.0) -> Formula:
    """All nats, in units of so many `nats`, over all that a field of the samples counts: long texts count for more.

    An item that counts nothing has no value. The formula raises DataError, saying what is `lacking`, if all count
    nothing.
    """

    def formula(samples: Samples) -> MetricResult:
        counts = np.array(samples.column(counted), dtype=np.float64)
        if not counts.any():
            raise DataError(lacking)
        amounts = np.array(samples.column("nll_nats"), dtype=np.float64) / nats
        values = tuple(float(amount / count) if count else None for amount, count in zip(amounts, counts, strict=True))
        aggregate = ratio(amounts, counts)
        return MetricResult(value_of(aggregate, len(samples)), values, aggregate)

    return formula


# The natural logarithm of the perplexity. Source: https://doi.org/10.1121/1.2016299.
PERPLEXITY = Metric(
    "perplexity",
    "Perplexity",
    _all_nats_over("nll_tokens", "perplexity: no text has a token that follows another"),
    kind="aggregate",
    unit="log",
    higher_is_better=False,
    needs=("nll_nats", "nll_tokens"),
    tasks=("perplexity",),
    per_token=True,
    details={"mean": "exp of all nats over all tokens; values are its natural logarithm"},
)

# Source: https://arxiv.org/abs/2101.00027, section 3.1.
BITS_PER_BYTE = Metric(
    "bits_per_byte",
    "Bits per byte",
    _all_nats_over("nll_bytes", "bits_per_byte: all texts are empty", nats=math.log(2)),
    kind="aggregate",
    unit="number",
    higher_is_better=False,
    default_margin=0.01,
    needs=("nll_nats", "nll_bytes"),
    tasks=("perplexity",),
    details={"mean": "all bits over all bytes of UTF-8"},
)
