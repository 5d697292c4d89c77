"""Phi-3, Phi-3.5 and Phi-4: query, key and value in one matrix, gate and up in another, long contexts by factors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune.errors import ModelError
from edgetune.gguf.architectures.decoder import NORMS, Decoder, require_plain_heads, warn_of_full_attention
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.gguf.architectures.rope import check_rope
from edgetune.models.config import ModelConfig

if TYPE_CHECKING:
    from gguf import GGUFWriter

_LONGROPE = ("su", "yarn")
"""Older names of longrope, https://arxiv.org/abs/2402.13753."""


class Phi3(Decoder):
    """https://arxiv.org/abs/2404.14219"""

    gguf_name = "phi3"
    defaults: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
    }
    block: ClassVar[Mapping[str, str]] = {
        **NORMS,
        "self_attn.qkv_proj": "attn_qkv",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }

    def describe_family(self, config: ModelConfig, writer: GGUFWriter) -> None:
        writer.add_rope_scaling_orig_ctx_len(config.require("original_max_position_embeddings"))
        writer.add_rope_dimension_count(_rotary_size(config))
        writer.add_rope_freq_base(float(config.rope["rope_theta"]))
        # Zero means none; llama.cpp computes no windows in this family anyway.
        writer.add_sliding_window(config.get("sliding_window", 0))
        if config.rope.get("long_factor"):
            writer.add_rope_scaling_attn_factors(_attention_factor(config))

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        require_plain_heads(config)
        rope = _rope(config)
        check_rope(rope, config, types=("default", "longrope"))
        if rope["rope_type"] == "default":
            return
        for field in ("long_factor", "short_factor"):
            if len(rope.get(field) or ()) != _rotary_size(config) // 2:
                raise ModelError(
                    f"its {field} has {len(rope.get(field) or ())} numbers, and a head has"
                    f" {_rotary_size(config) // 2} rotary pairs",
                    where=config.where,
                )
        given = rope.get("attention_factor")
        if given is not None and not math.isclose(given, _attention_factor(config), rel_tol=1e-6):
            raise ModelError(
                f"its attention_factor is {given}, and the context lengths make {_attention_factor(config):g}",
                where=config.where,
            )

    def warn(self, config: ModelConfig) -> None:
        warn_of_full_attention(config, config.get("sliding_window"))

    def computed(self, config: ModelConfig) -> Iterable[OutputTensor]:
        import numpy as np

        for field, name in (("long_factor", "rope_factors_long"), ("short_factor", "rope_factors_short")):
            if config.rope.get(field):
                factors = np.array(config.rope[field], dtype=np.float32)
                yield OutputTensor(f"{name}.weight", factors.shape, computed=factors)


def _rope(config: ModelConfig) -> Mapping[str, Any]:
    """The rotary embedding by its newest name."""
    rope = config.rope
    return {**rope, "rope_type": "longrope"} if rope["rope_type"] in _LONGROPE else rope


def _rotary_size(config: ModelConfig) -> int:
    """The part of a head's width that is rotated."""
    share = config.rope.get("partial_rotary_factor") or config.get("partial_rotary_factor", 1.0)
    return int(share * config.require("hidden_size")) // int(config.require("num_attention_heads"))


def _attention_factor(config: ModelConfig) -> float:
    """The factor of longrope for queries and keys of a context that was extended from the original length."""
    original = config.require("original_max_position_embeddings")
    scale = config.require("max_position_embeddings") / original
    return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
