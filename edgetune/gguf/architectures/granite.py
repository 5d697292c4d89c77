"""Granite 3: Llama's layers with scaled embeddings, residuals, attention and logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune.gguf.architectures.decoder import require_plain_heads
from edgetune.gguf.architectures.llama import Llama
from edgetune.gguf.architectures.rope import ROPE_TYPES
from edgetune.models.config import ModelConfig

if TYPE_CHECKING:
    from gguf import GGUFWriter


class Granite(Llama):
    """https://arxiv.org/abs/2408.13359, the Power scheduler paper, which defines these factors."""

    gguf_name = "granite"
    defaults: ClassVar[Mapping[str, Any]] = {
        **Llama.defaults,
        "embedding_multiplier": 1.0,
        "logits_scaling": 1.0,
        "residual_multiplier": 1.0,
        "attention_multiplier": 1.0,
    }

    rope_types = ROPE_TYPES

    def describe_family(self, config: ModelConfig, writer: GGUFWriter) -> None:
        self.describe_rotation(config, writer)
        writer.add_attention_scale(config.require("attention_multiplier"))
        writer.add_embedding_scale(config.require("embedding_multiplier"))
        writer.add_residual_scale(config.require("residual_multiplier"))
        writer.add_logit_scale(config.require("logits_scaling"))

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        require_plain_heads(config)
