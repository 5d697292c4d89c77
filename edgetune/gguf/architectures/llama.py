"""The Llama family: Llama 2 to 3.3, SmolLM2, TinyLlama and others with the same layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune.gguf.architectures.decoder import Decoder, describe_heads
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.gguf.architectures.rope import (
    ROPE_TYPES,
    check_rope,
    describe_rope,
    frequency_divisors,
    interleave_rotary_pairs,
)
from edgetune.models.config import ModelConfig
from edgetune.weights.base import TensorInfo

if TYPE_CHECKING:
    from gguf import GGUFWriter


class Llama(Decoder):
    """https://arxiv.org/abs/2302.13971; grouped-query attention, rotary embeddings, RMS norms, SwiGLU."""

    gguf_name = "llama"
    defaults: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
    }
    biases: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    rope_types: ClassVar[tuple[str, ...]] = (*ROPE_TYPES, "llama3")

    def describe_family(self, config: ModelConfig, writer: GGUFWriter) -> None:
        self.describe_rotation(config, writer)
        describe_heads(config.replace(head_dim=config.head_size), writer)

    def describe_rotation(self, config: ModelConfig, writer: GGUFWriter) -> None:
        """Write rotary embedding and vocabulary size."""
        writer.add_vocab_size(config.require("vocab_size"))
        writer.add_rope_dimension_count(config.head_size)
        describe_rope(config.rope, config, writer)

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        check_rope(config.rope, config, types=self.rope_types)

    def computed(self, config: ModelConfig) -> Iterable[OutputTensor]:
        divisors = frequency_divisors(config)
        if divisors is not None:
            yield OutputTensor("rope_freqs.weight", divisors.shape, computed=divisors)

    def place(self, name: str, info: TensorInfo, config: ModelConfig) -> OutputTensor:
        if ".q_proj." not in info.name and ".k_proj." not in info.name:
            return super().place(name, info, config)
        size = config.head_size
        transform = partial(interleave_rotary_pairs, head_size=size)
        return OutputTensor(name, info.shape, source=info.name, transform=transform, rows_together=size)
