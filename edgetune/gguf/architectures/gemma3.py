"""Gemma 3, text only: Gemma 2 with norms on queries and keys instead of caps, and two rotary bases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune.gguf.architectures.decoder import (
    ATTENTION,
    FEED_FORWARD,
    QUERY_KEY_NORMS,
    SANDWICH_NORMS,
    describe_heads,
    require_setting,
)
from edgetune.gguf.architectures.gemma2 import Gemma, check_layer_types
from edgetune.gguf.architectures.rope import check_rope, describe_rope
from edgetune.models.config import ModelConfig

if TYPE_CHECKING:
    from gguf import GGUFWriter

_FULL_ATTENTION_ONLY = 1
"""The sliding_window_pattern of a model without sliding windows."""


class Gemma3(Gemma):
    """https://arxiv.org/abs/2503.19786"""

    gguf_name = "gemma3"
    defaults: ClassVar[Mapping[str, Any]] = {
        **Gemma.defaults,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
    }
    block: ClassVar[Mapping[str, str]] = {**SANDWICH_NORMS, **ATTENTION, **QUERY_KEY_NORMS, **FEED_FORWARD}
    scaled_by_hidden_size = 62

    def describe_family(self, config: ModelConfig, writer: GGUFWriter) -> None:
        describe_heads(config, writer)
        describe_rope(_rope(config, "full_attention"), config, writer)
        writer.add_rope_freq_base_swa(float(_rope(config, "sliding_attention")["rope_theta"]))
        if config.get("final_logit_softcapping"):
            writer.add_final_logit_softcapping(config.require("final_logit_softcapping"))
        if config.get("sliding_window_pattern") != _FULL_ATTENTION_ONLY:
            writer.add_sliding_window(config.require("sliding_window"))

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        require_setting(config, "attn_logit_softcapping", None)
        require_setting(config, "sliding_window_pattern", None, 6, _FULL_ATTENTION_ONLY)
        check_layer_types(config, sliding_window_pattern=config.get("sliding_window_pattern", 6))
        check_rope(_rope(config, "full_attention"), config)
        check_rope(_rope(config, "sliding_attention"), config, types=("default",))


def _rope(config: ModelConfig, layer_type: str) -> Mapping[str, Any]:
    """Rotary embedding of the layers with full_attention or sliding_attention.

    Newer files have both under rope_parameters; in older ones, rope_scaling belongs to full attention.
    """
    rope = dict((config.get("rope_parameters") or {}).get(layer_type) or {})
    theta = config.get("rope_local_base_freq", 10000.0)
    if layer_type == "full_attention":
        rope |= config.get("rope_scaling") or {}
        theta = config.get("rope_theta", 1000000.0)
    rope.setdefault("rope_type", rope.get("type", "default"))
    rope.setdefault("rope_theta", theta)
    return rope
