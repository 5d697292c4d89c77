"""Qwen2 and Qwen2.5: Llama's layers with biases on query, key and value, rotary pairs as in Transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune.gguf.architectures.decoder import (
    Decoder,
    describe_heads,
    require_plain_heads,
    warn_of_full_attention,
)
from edgetune.gguf.architectures.rope import check_rope, describe_rope
from edgetune.models.config import ModelConfig

if TYPE_CHECKING:
    from gguf import GGUFWriter


class Qwen2(Decoder):
    """https://arxiv.org/abs/2407.10671"""

    gguf_name = "qwen2"
    defaults: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
    }
    biases: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj")

    def describe_family(self, config: ModelConfig, writer: GGUFWriter) -> None:
        describe_rope(config.rope, config, writer)
        describe_heads(config, writer)

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        self.check_heads(config)
        check_rope(config.rope, config)

    def check_heads(self, config: ModelConfig) -> None:
        """Raise ModelError for a width of heads that llama.cpp cannot compute with."""
        require_plain_heads(config)

    def warn(self, config: ModelConfig) -> None:
        slides = config.require("max_window_layers") < config.require("num_hidden_layers")
        if config.require("use_sliding_window") and slides:
            warn_of_full_attention(config, config.get("sliding_window"))
