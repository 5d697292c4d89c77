"""The base as it was in training: its linear layers rounded as bitsandbytes quantized them.

A QLoRA adapter (https://arxiv.org/abs/2305.14314) is trained on weights rounded to NF4 (or int8, for LLM.int8(),
https://arxiv.org/abs/2208.07339), and has learned to correct some of the rounding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import UsageError
from edgetune.models.config import ModelConfig
from edgetune.models.families import auto_class
from edgetune.recipe.yaml_input import read_mapping
from edgetune.weights.base import BaseTensors, TensorInfo
from edgetune.weights.classifier import ends_in_head
from edgetune.weights.source import ModelSource
from edgetune.weights.torch_arrays import as_array, copy_to_torch, dtype_word
from edgetune.weights.whole_tensors import WholeTensors

if TYPE_CHECKING:
    import numpy as np
    import torch

_NF4_BLOCK = 64
"""Weights that share one scale in a layer of Transformers and bitsandbytes."""


@dataclass(frozen=True)
class TrainedQuantization:
    """How a run's base was quantized in training. `dtype` is the type of its layers' computation."""

    kind: str
    double_quantization: bool
    dtype: torch.dtype


def trained_quantization(source: ModelSource) -> TrainedQuantization:
    """The quantization in the run's recipe. Raises UsageError when the base was not quantized, or it is unknown how."""
    from edgetune.models.load import resolve_dtype

    way_out = "leave out --base-as to fold the adapter into the stored base"
    if source.recipe is None:
        raise UsageError(
            "--base-as trained needs a run directory, whose recipe says how the base was quantized",
            where=source.name,
            remedy=way_out,
        )
    recorded = read_mapping(source.recipe).get("base")
    settings: dict[str, Any] = recorded if isinstance(recorded, dict) else {}
    kind = settings.get("quantize", "none")
    if kind not in ("nf4", "int8"):
        raise UsageError(
            f"--base-as trained is for a base that was quantized while training, and base.quantize is {kind}",
            where=source.recipe,
            remedy=way_out,
        )
    dtype = settings.get("dtype", "auto")
    if dtype == "auto":
        dtype = _recorded_dtype(source.recipe.parent / "summary.json")
    return TrainedQuantization(kind, bool(settings.get("double_quantization", True)), resolve_dtype(dtype))


class TrainedBase:
    """`base` with the quantized layers rounded as in training, in the type of that computation.

    A layer is rounded whole and kept until its rows are released.
    """

    def __init__(self, base: BaseTensors, config: ModelConfig, quantization: TrainedQuantization) -> None:
        self._base = base
        self._quantization = quantization
        rounded = _quantized_layers(config)
        word = dtype_word(quantization.dtype)
        self.tensors: dict[str, TensorInfo] = {
            name: replace(info, dtype=word) if name in rounded else info for name, info in base.tensors.items()
        }
        self.rounded = frozenset(name for name in base.tensors if name in rounded)
        self._whole = WholeTensors(self._round)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return (self._whole if name in self.rounded else self._base).rows(name, start, stop)

    def release(self, name: str, start: int, stop: int) -> None:
        (self._whole if name in self.rounded else self._base).release(name, start, stop)

    def _round(self, name: str) -> dict[str, np.ndarray]:
        info = self._base.tensors[name]
        weight = copy_to_torch(self._base.rows(name, 0, info.shape[0]), info.dtype).to(self._quantization.dtype)
        self._base.release(name, 0, info.shape[0])
        return {name: as_array(round_weight(weight, self._quantization))}


def round_weight(weight: torch.Tensor, quantization: TrainedQuantization) -> torch.Tensor:
    """A linear layer's weight (rows, columns) quantized as bitsandbytes' layers do, and back."""
    import bitsandbytes.functional as bnb
    import torch

    if quantization.kind == "int8":
        # LLM.int8() layers quantize what they were given in float16, row by row.
        codes, row_maxima, _ = bnb.int8_vectorwise_quant(weight.to(torch.float16))
        rounded: torch.Tensor = bnb.int8_vectorwise_dequant(codes, row_maxima).to(weight.dtype)
        return rounded
    codes, state = bnb.quantize_4bit(
        weight, blocksize=_NF4_BLOCK, compress_statistics=quantization.double_quantization, quant_type="nf4"
    )
    return bnb.dequantize_4bit(codes, state)


def _quantized_layers(config: ModelConfig) -> set[str]:
    """The weights that Transformers quantizes with bitsandbytes, by its own rule for the model without its weights."""
    import torch
    from transformers.quantizers.base import HfQuantizer
    from transformers.quantizers.quantizers_utils import should_convert_module

    from edgetune.models.load import head_modules, without_weights

    classifies = ends_in_head(config)
    model = without_weights(auto_class(config.model_type, classifies=classifies).from_config, config.in_transformers())
    untouched = head_modules(model) if classifies else None
    kept = HfQuantizer.get_modules_to_not_convert(model, untouched, model._keep_in_fp32_modules)
    return {
        f"{path}.weight"
        for path, module in model.named_modules()
        if type(module) is torch.nn.Linear and should_convert_module(path, kept)
    }


def _recorded_dtype(summary: Path) -> str:
    """The type that "auto" meant in training; "auto" where the run does not record it."""
    try:
        return str(json.loads(summary.read_text(encoding="utf-8"))["dtype"])
    except (OSError, ValueError, KeyError, TypeError):
        return "auto"
