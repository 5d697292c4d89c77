"""Gemma 2: norms before and after each half of a block, capped logits, sliding windows in every other layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune import events
from edgetune.errors import ModelError
from edgetune.gguf.architectures.decoder import (
    ATTENTION,
    FEED_FORWARD,
    SANDWICH_NORMS,
    Decoder,
    describe_heads,
    require_setting,
)
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.gguf.architectures.rope import check_rope
from edgetune.models.config import ModelConfig
from edgetune.weights.base import TensorInfo

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter


class Gemma(Decoder):
    """The common part of Gemma 2 and 3: norms that multiply with 1 + weight, and a setting that scales attention."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    }
    activation = ("hidden_activation", "gelu_pytorch_tanh")
    biases: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj")
    scaled_by_hidden_size: int
    """The number of layers with which llama.cpp scales attention by hidden_size / heads, not by the head's width."""

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        require_setting(config, "use_bidirectional_attention", None, False)

    def warn(self, config: ModelConfig) -> None:
        scale, expected = config.require("query_pre_attn_scalar"), config.head_size
        if config.require("num_hidden_layers") == self.scaled_by_hidden_size:
            expected = config.require("hidden_size") // config.require("num_attention_heads")
        if scale != expected:
            events.warn(
                f"{config.where} has query_pre_attn_scalar {scale}, but llama.cpp always computes this family with "
                f"{expected}, so its answers differ from the trained model's"
            )

    def place(self, name: str, info: TensorInfo, config: ModelConfig) -> OutputTensor:
        if not info.name.endswith("norm.weight"):
            return super().place(name, info, config)
        # The converter adds in the stored type where that is float16, and in float32 otherwise.
        transform = _one_plus_in_float16 if info.dtype == "F16" else _one_plus
        return OutputTensor(name, info.shape, source=info.name, transform=transform)


class Gemma2(Gemma):
    """https://arxiv.org/abs/2408.00118"""

    gguf_name = "gemma2"
    defaults: ClassVar[Mapping[str, Any]] = {
        **Gemma.defaults,
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
    }
    block: ClassVar[Mapping[str, str]] = {**SANDWICH_NORMS, **ATTENTION, **FEED_FORWARD}
    scaled_by_hidden_size = 46

    def describe_family(self, config: ModelConfig, writer: GGUFWriter) -> None:
        describe_heads(config, writer)
        writer.add_attn_logit_softcapping(config.require("attn_logit_softcapping"))
        writer.add_final_logit_softcapping(config.require("final_logit_softcapping"))
        writer.add_sliding_window(config.require("sliding_window"))

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        require_setting(config, "tie_word_embeddings", True)
        check_layer_types(config, sliding_window_pattern=2)
        for field in ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window"):
            if config.get(field) is None:
                raise ModelError(f"{field} is null, and llama.cpp computes this family with one", where=config.where)
        # Files of this family have no keys for rotation; llama.cpp uses its defaults.
        rope = config.rope
        check_rope(rope, config, types=("default",))
        if rope["rope_theta"] != 10000:
            raise ModelError(
                f"its rope_theta is {rope['rope_theta']:g}, and llama.cpp computes this family with 10000 only",
                where=config.where,
            )


def check_layer_types(config: ModelConfig, *, sliding_window_pattern: int) -> None:
    """Raise ModelError unless only the last of each `sliding_window_pattern` layers has full attention."""
    expected = [
        "sliding_attention" if (layer + 1) % sliding_window_pattern else "full_attention"
        for layer in range(config.require("num_hidden_layers"))
    ]
    if config.get("layer_types", expected) != expected:
        raise ModelError(
            f"layer_types is not what llama.cpp supports in this family (full attention in every"
            f" {sliding_window_pattern}th layer)",
            where=config.where,
        )


def _one_plus(weight: np.ndarray) -> np.ndarray:
    return weight + 1


def _one_plus_in_float16(weight: np.ndarray) -> np.ndarray:
    import numpy as np

    return (weight.astype(np.float16) + 1).astype(np.float32)
