"""The float type in which weights are written, or from which they are quantized."""

from __future__ import annotations

from collections.abc import Mapping

from edgetune.weights.base import TensorInfo


def resolve_outtype(requested: str, tensors: Mapping[str, TensorInfo]) -> str:
    """F32, F16 or BF16 for a `requested` f32, f16, bf16 or auto, as llama.cpp's converter does for a single shard.

    auto is the type of the first matrix, by name, in 16 bits, and F16 where there is none: a float32 base is rounded to
    float16 before it is quantized.
    """
    if requested != "auto":
        return requested.upper()
    for name in sorted(tensors):
        if len(tensors[name].shape) > 1 and tensors[name].dtype in ("F16", "BF16"):
            return str(tensors[name].dtype)
    return "F16"
