"""Limits of the divergence of a GGUF from its source model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.gguf.verification.divergence import Divergence


@dataclass(frozen=True)
class CheckedFigure:
    """A figure with its limit."""

    name: str
    value: float
    limit: float
    is_minimum: bool = False

    @property
    def kept(self) -> bool:
        """True if the value is within the limit."""
        return self.value >= self.limit if self.is_minimum else self.value <= self.limit


@dataclass(frozen=True)
class Thresholds:
    """The limits of the measured figures; KL divergences in nats."""

    max_kl_mean: float
    max_kl_p99: float
    min_top1: float
    max_perplexity_ratio: float

    def judge(self, measured: Divergence) -> Sequence[CheckedFigure]:
        """Every figure with its limit."""
        return [
            CheckedFigure("mean KL divergence", measured.kl_mean, self.max_kl_mean),
            CheckedFigure("99 % KL divergence", measured.kl_p99, self.max_kl_p99),
            CheckedFigure("top-1 agreement", measured.top1_agreement, self.min_top1, is_minimum=True),
            CheckedFigure("perplexity ratio", measured.perplexity_ratio, self.max_perplexity_ratio),
        ]


DEFAULTS = {
    16: Thresholds(max_kl_mean=0.01, max_kl_p99=0.1, min_top1=0.97, max_perplexity_ratio=1.01),
    8: Thresholds(max_kl_mean=0.03, max_kl_p99=0.3, min_top1=0.92, max_perplexity_ratio=1.03),
    0: Thresholds(max_kl_mean=0.25, max_kl_p99=2.5, min_top1=0.75, max_perplexity_ratio=1.25),
}
"""Minimum bits per weight -> limits: about three times the figures of SmolLM2-135M in F16, Q8_0 and Q4_K_M, which loses
more in quantization than larger models."""


def default_thresholds(bits_per_weight: float) -> Thresholds:
    """The limits for a file with this number of bits per weight."""
    return next(limits for bits, limits in DEFAULTS.items() if bits_per_weight >= bits)
