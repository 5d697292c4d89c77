"""SmolLM3: Llama's layers, every fourth without rotary embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune.errors import ModelError
from edgetune.gguf.architectures.decoder import describe_heads, warn_of_full_attention
from edgetune.gguf.architectures.llama import Llama
from edgetune.gguf.architectures.rope import ROPE_TYPES
from edgetune.models.config import ModelConfig

if TYPE_CHECKING:
    from gguf import GGUFWriter

_NO_ROPE_INTERVAL = 4
"""llama.cpp's; the file has no key for it."""


class SmolLM3(Llama):
    """https://huggingface.co/blog/smollm3; layers without rotary embedding after https://arxiv.org/abs/2501.18795."""

    gguf_name = "smollm3"
    defaults: ClassVar[Mapping[str, Any]] = {
        **Llama.defaults,
        "vocab_size": 128256,
        "hidden_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rope_theta": 2000000.0,
        "no_rope_layer_interval": 4,
        "use_sliding_window": False,
    }
    biases: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj")
    rope_types = ROPE_TYPES

    def describe_family(self, config: ModelConfig, writer: GGUFWriter) -> None:
        self.describe_rotation(config, writer)
        describe_heads(config, writer)

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        layers = config.require("num_hidden_layers")
        interval = config.require("no_rope_layer_interval")
        rotated = config.get("no_rope_layers") or _rotated(interval, layers)
        if [bool(layer) for layer in rotated[:layers]] != _rotated(_NO_ROPE_INTERVAL, layers):
            raise ModelError(
                f"no_rope_layers is {list(rotated)}, and llama.cpp omits the rotary embedding only in every"
                f" {_NO_ROPE_INTERVAL}th layer",
                where=config.where,
            )

    def warn(self, config: ModelConfig) -> None:
        if config.require("use_sliding_window"):
            warn_of_full_attention(config, config.get("sliding_window"))


def _rotated(interval: int, layers: int) -> list[bool]:
    return [(layer + 1) % interval != 0 for layer in range(layers)]
