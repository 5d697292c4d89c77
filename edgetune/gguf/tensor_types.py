"""Which type each tensor of the file is stored in, decided apart from writing it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.gguf.presets import PRESETS, Preset
from edgetune.weights.base import TensorInfo

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType


def plain_types(plan: Sequence[OutputTensor], preset: Preset) -> dict[str, GGMLQuantizationType]:
    """Types by tensor name for a plain preset: matrices in its float type, everything else in float32."""
    from gguf import GGMLQuantizationType

    matrix = GGMLQuantizationType[preset.name.upper()]
    return {tensor.name: matrix if tensor.matrix else GGMLQuantizationType.F32 for tensor in plan}


def lossless_preset(tensors: Iterable[TensorInfo]) -> Preset:
    """The plain preset that holds these tensors' values exactly: what the quantizer should start from.

    llama.cpp's converter takes f16 or bf16 for float32 weights too, which rounds twice.
    """
    import torch

    found = {info.dtype for info in tensors if len(info.shape) > 1}
    if found == {torch.float16}:
        return PRESETS["f16"]
    if found == {torch.bfloat16}:
        return PRESETS["bf16"]
    return PRESETS["f32"]
