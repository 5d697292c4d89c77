"""How well a model predicts texts, from the sum of their tokens' negative log-likelihoods in nats."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
