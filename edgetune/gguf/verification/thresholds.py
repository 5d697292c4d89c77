"""How far a GGUF may be from the model that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.gguf.verification.divergence import Divergence


@dataclass(frozen=True)
class Figure:
    """A figure beside the limit that it must keep."""

    name: str
    value: float
    limit: float
    kept: bool


@dataclass(frozen=True)
class Thresholds:
    """The limits of each figure that is measured; KL divergences in nats."""

    max_kl_mean: float
    max_kl_p99: float
    min_top1: float
    max_perplexity_ratio: float

    def judge(self, measured: Divergence) -> Sequence[Figure]:
        """Every figure with its limit."""
        return [
            _at_most("mean KL divergence", measured.kl_mean, self.max_kl_mean),
            _at_most("99 % KL divergence", measured.kl_p99, self.max_kl_p99),
            _at_least("top-1 agreement", measured.top1_agreement, self.min_top1),
            _at_most("perplexity ratio", measured.perplexity_ratio, self.max_perplexity_ratio),
        ]


DEFAULTS = {
    16: Thresholds(max_kl_mean=0.01, max_kl_p99=0.1, min_top1=0.97, max_perplexity_ratio=1.01),
    8: Thresholds(max_kl_mean=0.03, max_kl_p99=0.3, min_top1=0.92, max_perplexity_ratio=1.03),
    0: Thresholds(max_kl_mean=0.25, max_kl_p99=2.5, min_top1=0.75, max_perplexity_ratio=1.25),
}
"""By the bits per weight that a file has at least: about three times what F16, Q8_0 and Q4_K_M cost SmolLM2-135M, whose
weights suffer more than those of larger models."""


def default_thresholds(bits_per_weight: float) -> Thresholds:
    """The limits for a file of so many bits per weight."""
    return next(limits for bits, limits in DEFAULTS.items() if bits_per_weight >= bits)


def _at_most(name: str, value: float, limit: float) -> Figure:
    return Figure(name, value, limit, value <= limit)


def _at_least(name: str, value: float, limit: float) -> Figure:
    return Figure(name, value, limit, value >= limit)
