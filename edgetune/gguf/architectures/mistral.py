"""Mistral 7B, Mistral Nemo and Mistral Small: Llama's layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgetune.gguf.architectures.decoder import warn_of_full_attention
from edgetune.gguf.architectures.llama import Llama
from edgetune.models.config import ModelConfig


class Mistral(Llama):
    """https://arxiv.org/abs/2310.06825; llama.cpp runs it as a Llama."""

    defaults: ClassVar[Mapping[str, Any]] = {
        **Llama.defaults,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    }
    biases: ClassVar[tuple[str, ...]] = ()

    def warn(self, config: ModelConfig) -> None:
        warn_of_full_attention(config, config.get("sliding_window"))
