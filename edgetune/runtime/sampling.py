"""How the next token is chosen: the settings, and the native sampler chain that llama.cpp runs them in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.errors import UsageError

PENALTY_WINDOW_TOKENS = 64
"""repeat_penalty looks back this far, llama.cpp's own default."""


@dataclass(frozen=True)
class Sampling:
    """The defaults are llama.cpp's. Raises UsageError for an invalid value."""

    temperature: float = 0.8
    """0 always takes the likeliest token."""
    top_k: int = 40
    """Only this many of the likeliest tokens stay; 0 keeps all."""
    top_p: float = 0.95
    """Only the likeliest tokens that make up this probability stay; 1 keeps all."""
    min_p: float = 0.05
    """Only tokens at least this likely, relative to the likeliest, stay; 0 keeps all."""
    repeat_penalty: float = 1.0
    """Divides the logits of recent tokens; 1 leaves them."""
    seed: int | None = None
    """None draws a new one each time."""

    def __post_init__(self) -> None:
        for name in ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed"):
            value, whole = getattr(self, name), name in ("top_k", "seed")
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            known = number or (name == "seed" and value is None)
            _require(known, name, repr(value), "a whole number" if whole else "a number")
        _require(
            math.isfinite(self.temperature) and self.temperature >= 0, "temperature", self.temperature, "at least 0"
        )
        _require(self.top_k >= 0, "top_k", self.top_k, "at least 0")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "more than 0 and at most 1")
        _require(0 <= self.min_p <= 1, "min_p", self.min_p, "between 0 and 1")
        positive = math.isfinite(self.repeat_penalty) and self.repeat_penalty > 0
        _require(positive, "repeat_penalty", self.repeat_penalty, "more than 0")
        _require(self.seed is None or 0 <= self.seed < 2**32 - 1, "seed", self.seed, "between 0 and 4294967294")


def build_chain(sampling: Sampling, vocabulary_size: int, prompt: Sequence[int]) -> Any:
    """The native chain, in llama.cpp's order. Free it with llama_sampler_free.

    `prompt` ids count as recent for the penalty.
    """
    import llama_cpp

    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())

    def add(sampler: Any) -> None:
        llama_cpp.llama_sampler_chain_add(chain, sampler)

    penalized = sampling.repeat_penalty != 1.0
    if penalized:
        add(
            llama_cpp.llama_sampler_init_penalties(
                vocabulary_size, PENALTY_WINDOW_TOKENS, sampling.repeat_penalty, 0.0, 0.0
            )
        )
    if sampling.temperature == 0:
        add(llama_cpp.llama_sampler_init_greedy())
    else:
        add(llama_cpp.llama_sampler_init_top_k(sampling.top_k))
        add(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
        add(llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
        add(llama_cpp.llama_sampler_init_temp(sampling.temperature))
        seed = llama_cpp.LLAMA_DEFAULT_SEED if sampling.seed is None else sampling.seed
        add(llama_cpp.llama_sampler_init_dist(seed))
    if penalized:
        for token in prompt[-PENALTY_WINDOW_TOKENS:]:
            llama_cpp.llama_sampler_accept(chain, token)
    return chain


def _require(held: bool, name: str, value: object, bound: str) -> None:
    if not held:
        raise UsageError(f"{name} is {value}; it must be {bound}")


GREEDY = Sampling(temperature=0)
