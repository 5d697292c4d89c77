"""Rotary embeddings: the order of the rotated rows, and the scaling that a file can describe."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from edgetune.errors import ModelError
from edgetune.models.config import ModelConfig

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter


ROPE_TYPES = ("default", "dynamic", "linear", "yarn")
"""The types that llama.cpp computes in every family without its own rule."""

_REQUIRED = {
    "linear": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}


def interleave_rotary_pairs(rows: np.ndarray, head_size: int) -> np.ndarray:
    """Reorder the rows of a query or key projection, whole heads of it, for llama.cpp's rotary embedding.

    rows (heads·head_size, …). Transformers rotates row i of a head with row i + head_size / 2, llama.cpp row 2i with
    row 2i + 1.
    """
    pairs = rows.reshape(-1, 2, head_size // 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def check_rope(rope: Mapping[str, Any], config: ModelConfig, *, types: Collection[str] = ROPE_TYPES) -> None:
    """Raise ModelError for a rotary embedding that llama.cpp cannot compute in a family that has these `types`."""
    kind = rope["rope_type"]
    if kind not in types:
        raise ModelError(
            f"its rope_type is {kind}, which llama.cpp cannot compute in this family",
            where=config.where,
            remedy=f"the types are {', '.join(types)}",
        )
    for field in _REQUIRED.get(kind, ()):
        if rope.get(field) is None:
            raise ModelError(f"its rope scaling of type {kind} has no {field}", where=config.where)
    if kind == "yarn":
        _check_yarn(rope, config)


def describe_rope(rope: Mapping[str, Any], config: ModelConfig, writer: GGUFWriter) -> None:
    """Write rotary base and scaling. For Llama 3.1's scaling, which is a tensor (`frequency_divisors`), and for dynamic
    scaling, which begins after the context length of the file, only the base is written."""
    from gguf import RopeScalingType

    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] not in ("linear", "yarn"):
        return
    writer.add_rope_scaling_type(RopeScalingType(rope["rope_type"]))
    writer.add_rope_scaling_factor(float(rope["factor"]))
    if rope["rope_type"] == "linear":
        return
    writer.add_rope_scaling_orig_ctx_len(_original_length(rope, config))
    for field, add in (
        ("extrapolation_factor", writer.add_rope_scaling_yarn_ext_factor),
        ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
        ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
        ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
    ):
        if rope.get(field) is not None:
            add(float(rope[field]))


def frequency_divisors(config: ModelConfig) -> np.ndarray | None:
    """Llama 3.1's frequency divisors, (head size / 2,) in float32; None without that scaling.

    Frequencies of long wavelengths are divided by `factor`, those of short ones are unchanged, those between are
    interpolated (Transformers' `_compute_llama3_parameters`). Every step is rounded to float32 as in llama.cpp's
    converter, where a number divided by a tensor is the number times the tensor's reciprocal.
    """
    import numpy as np

    rope = config.rope
    if rope["rope_type"] != "llama3":
        return None
    single = np.float32
    factor, low, high = (float(rope[field]) for field in _REQUIRED["llama3"])
    original = _original_length(rope, config)
    size = config.head_size
    powers = _powers(float(rope["rope_theta"]), np.arange(0, size, 2, dtype=np.float32) / single(size))
    wavelengths = 1 / (1 / powers) * single(2 * math.pi)
    smooth = (1 / wavelengths * single(original) - single(low)) / single(high - low)
    between = 1 / ((1 - smooth) / single(factor) + smooth)
    divisors = np.where(wavelengths > single(original / low), single(factor), between)
    return np.where(wavelengths < single(original / high), single(1), divisors).astype(np.float32)


def _powers(base: float, exponents: np.ndarray) -> np.ndarray:
    """base ** exponents in float32. Libraries differ in the last bit. The converter uses torch's powers; without torch,
    the result is correctly rounded."""
    import numpy as np

    try:
        import torch
    except ModuleNotFoundError:
        return np.power(base, exponents.astype(np.float64)).astype(np.float32)
    powers: np.ndarray = (base ** torch.from_numpy(exponents)).numpy()
    return powers


def _check_yarn(rope: Mapping[str, Any], config: ModelConfig) -> None:
    """llama.cpp computes YaRN with the paper's settings, even where the file has others."""
    factor = float(rope["factor"])
    attention, numerator, denominator = (rope.get(f) for f in ("attention_factor", "mscale", "mscale_all_dim"))
    if attention is None and numerator and denominator:
        attention = _yarn_scale(factor, numerator) / _yarn_scale(factor, denominator)
    for field, value, expected in (
        ("attention_factor", attention, _yarn_scale(factor, 1)),
        ("beta_fast", rope.get("beta_fast"), 32),
        ("beta_slow", rope.get("beta_slow"), 1),
        ("truncate", rope.get("truncate"), True),
    ):
        if value is not None and not math.isclose(value, expected, rel_tol=1e-6):
            raise ModelError(
                f"its yarn rope scaling has {field} {value}, and llama.cpp computes with {expected}",
                where=config.where,
            )


def _yarn_scale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1


def _original_length(rope: Mapping[str, Any], config: ModelConfig) -> int:
    """The context length, in tokens, before the scaling."""
    return int(rope.get("original_max_position_embeddings") or config.require("max_position_embeddings"))
