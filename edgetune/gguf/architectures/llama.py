"""The Llama family: Llama 2 to 3.3, SmolLM2, TinyLlama and others of the same layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from edgetune.errors import ModelError
from edgetune.gguf.architectures.plan import OutputTensor, gguf_names
from edgetune.weights.base import TensorInfo

if TYPE_CHECKING:
    import torch
    from gguf import GGUFWriter


class Llama:
    """https://arxiv.org/abs/2302.13971; grouped-query attention, rotary embeddings, RMS norms, SwiGLU."""

    gguf_name = "llama"

    def describe(self, config: Any, writer: GGUFWriter) -> None:
        """Write the hyperparameters. Raises ModelError for an activation or rope scaling that llama.cpp lacks."""
        if config.hidden_act not in ("silu", "swish"):
            raise ModelError(f"hidden_act is {config.hidden_act}, and llama.cpp computes this family with silu only")
        writer.add_vocab_size(config.vocab_size)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(_head_size(config))
        writer.add_value_length(_head_size(config))
        writer.add_rope_dimension_count(_head_size(config))
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        describe_rope(config, writer)

    def plan(self, config: Any, tensors: Mapping[str, TensorInfo]) -> list[OutputTensor]:
        """The file's tensors in order; query and key rows go from half-split to interleaved rotary pairs."""
        names = gguf_names(self.gguf_name, config.num_hidden_layers, tensors)
        planned = []
        for info in tensors.values():
            module = info.name.rsplit(".", 2)[-2]
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(module)
            planned.append(
                OutputTensor(
                    name=names[info.name],
                    shape=info.shape,
                    matrix=len(info.shape) > 1,
                    source=info.name,
                    transform=None if heads is None else partial(interleave_rotary_pairs, heads=heads),
                )
            )
        factors = rope_factors(config)
        if factors is not None:
            planned.append(OutputTensor("rope_freqs.weight", tuple(factors.shape), matrix=False, computed=factors))
        return planned


def interleave_rotary_pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder the rows of a query or key projection, (heads·d, …), for llama.cpp's rotary embedding.

    Transformers rotates row i of a head with row i + d/2, llama.cpp row 2i with row 2i + 1.
    """
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def describe_rope(config: Any, writer: GGUFWriter) -> None:
    """Write rotary base and scaling. Raises ModelError for a scaling that llama.cpp has no rule for."""
    from gguf import RopeScalingType

    rope = _rope(config)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    match rope.get("rope_type", "default"):
        case "default" | "llama3":
            pass
        case "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(rope["factor"]))
        case "yarn":
            _refuse_unusual_yarn(rope)
            writer.add_rope_scaling_type(RopeScalingType.YARN)
            writer.add_rope_scaling_factor(float(rope["factor"]))
            original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
            writer.add_rope_scaling_orig_ctx_len(int(original))
        case other:
            raise ModelError(
                f"rope scaling of type {other} cannot be written for this family",
                remedy="the types are default, linear, yarn and llama3",
            )


def rope_factors(config: Any) -> torch.Tensor | None:
    """Llama 3.1's frequency divisors, (head size / 2,) in float32; None without that scaling.

    Long wavelengths are slowed by `factor`, short ones are left alone, those between are interpolated
    (Transformers' `_compute_llama3_parameters`).
    """
    import torch

    rope = _rope(config)
    if rope.get("rope_type") != "llama3":
        return None
    size = _head_size(config)
    exponents = torch.arange(0, size, 2, dtype=torch.float32) / size
    wavelengths = 2 * math.pi * float(rope["rope_theta"]) ** exponents
    original, factor = rope["original_max_position_embeddings"], float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    smooth = ((original / wavelengths - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def _refuse_unusual_yarn(rope: dict[str, Any]) -> None:
    """The file has no place for these, so llama.cpp would compute with its own defaults."""
    defaults = {"beta_fast": 32, "beta_slow": 1, "attention_factor": None, "mscale": None, "mscale_all_dim": None}
    for key, default in defaults.items():
        if rope.get(key) not in (None, default):
            raise ModelError(
                f"its yarn rope scaling sets {key} to {rope[key]}, which cannot be written for this family"
            )


def _rope(config: Any) -> dict[str, Any]:
    return dict(config.rope_parameters)


def _head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
