"""LoftQ: A and B begin as the rounding error of each weight in NF4, https://arxiv.org/abs/2310.08659.

PEFT's own `replace_lora_weights_loftq` only computes on a GPU and only reads safetensors. As there, the base is what
bitsandbytes makes of the original weights: one round of the paper's algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgetune.errors import ModelError
from edgetune.models.checkpoint import weight_files
from edgetune.models.gguf_file import GgufFile
from edgetune.models.locate import ModelFiles
from edgetune.models.methods.adapted_model import AdaptedModel

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig

WeightOf = Callable[[str], Tensor]
"""A parameter's name in the model -> its values before quantization."""


def begin_loftq(adapted: PeftModel, subject: AdaptedModel) -> None:
    """Set A and B of each NF4 layer to the best rank-r approximation of W − Q(W). Raises RecipeError, ModelError."""
    import bitsandbytes as bnb

    layers = {
        path: module
        for path, module in adapted.get_base_model().named_modules()
        if hasattr(module, "lora_A") and isinstance(module.base_layer, bnb.nn.Linear4bit)
    }
    if not layers or subject.files is None:
        raise subject.cannot("method.init loftq needs a base that is quantized to nf4", "set base.quantize to nf4")
    weight_of = _original_weights(subject.files, adapted)
    with torch.no_grad():
        for path, layer in layers.items():
            quantized = layer.base_layer.weight
            rounded = bnb.functional.dequantize_4bit(quantized.data, quantized.quant_state)
            lost = weight_of(f"{path}.weight").to(rounded.device, torch.float32) - rounded.float()
            first, second = _best_of_rank(lost, layer.r["default"])
            scale = layer.scaling["default"]
            layer.lora_A["default"].weight.copy_(first)
            layer.lora_B["default"].weight.copy_(second / scale)


def _best_of_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank), whose product is nearest to `matrix` (out, in) by Eckart and Young."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    root = values[:rank].sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


def _original_weights(files: ModelFiles, adapted: PeftModel) -> WeightOf:
    model = adapted.get_base_model()
    read = _gguf_weights(files, model.config) if files.gguf is not None else _folder_weights(files)
    prefix = f"{model.base_model_prefix}."

    def weight_of(name: str) -> Tensor:
        """The file of a pretrained network may lack the prefix of the model with a head."""
        for known in (name, name.removeprefix(prefix)):
            found = read(known)
            if found is not None:
                return found
        raise ModelError(
            f"has no tensor {name}, which method.init loftq needs to compute its rounding error",
            where=files.reference,
            remedy="set method.init to default",
        )

    return weight_of


def _folder_weights(files: ModelFiles) -> Callable[[str], Tensor | None]:
    from safetensors import safe_open

    shard_of = {}
    for file in weight_files(files.folder):
        with safe_open(file, framework="pt") as shard:
            shard_of.update(dict.fromkeys(shard.keys(), file))

    def read(name: str) -> Tensor | None:
        if name not in shard_of:
            return None
        with safe_open(shard_of[name], framework="pt") as shard:
            tensor: Tensor = shard.get_tensor(name)
        return tensor

    return read


def _gguf_weights(files: ModelFiles, config: PretrainedConfig) -> Callable[[str], Tensor | None]:
    from edgetune.models.gguf_tensors import open_gguf_tensors

    assert files.gguf is not None
    tensors = open_gguf_tensors(GgufFile(files.gguf), lambda: config)

    def read(name: str) -> Tensor | None:
        return torch.from_numpy(tensors.load(name)) if name in tensors.shapes else None

    return read
