"""Replaces the matrix products of a model's frozen layers on a CPU, and decides which layers allow it."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from edgetune.training.objectives.adapted import base_model
from edgetune.training.pages import Span, forget_mapped, mapped_spans, trim_heap
from edgetune.training.products import Bfloat16Linear, OneDnnLinear

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Products:
    """How frozen layers multiply: in bfloat16 where that is safe; the others by oneDNN, or by PyTorch's default."""

    onednn: bool = False
    bfloat16: bool = False

    def __str__(self) -> str:
        if self.bfloat16:
            return "bfloat16"
        return "float32 by oneDNN" if self.onednn else "float32"


def use_products(model: PeftModel | PreTrainedModel, products: Products) -> str | None:
    """Use `products` in the frozen layers of `model`. Returns them in words, None where there are no frozen layers.

    For bfloat16, the weights are rounded one after the other, so that there are never two models in memory.
    """
    layers = frozen_layers(model)
    narrow = bfloat16_layers(model) if products.bfloat16 else []
    spans = mapped_spans() if narrow else []
    for layer in narrow:
        _round(layer, spans)
        layer.forward = _bfloat16_forward(layer)
    if products.onednn:
        for layer in set(layers).difference(narrow):
            if layer.bias is None or not layer.bias.requires_grad:
                layer.forward = _onednn_forward(layer)
    return str(products) if layers else None


def frozen_layers(model: nn.Module) -> list[nn.Linear]:
    """The linear layers of `model` on a CPU whose float32 weights are not trained."""
    return [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and module.weight.dtype == torch.float32
        and module.weight.device.type in ("cpu", "meta")
        and not module.weight.requires_grad
    ]


def bfloat16_layers(model: PeftModel | PreTrainedModel) -> list[nn.Linear]:
    """The base's frozen layers whose weights may be rounded.

    Not rounded are the output layer, which the loss depends on; layers that Transformers always keeps in float32;
    weights that two modules share; and weights that the model's code reads directly.
    """
    base = base_model(model)
    output = base.get_output_embeddings()
    untouched = set() if output is None else set(output.modules())
    wide = set(base._keep_in_fp32_modules_strict or ())
    owners = Counter(_storage(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    frozen = set(frozen_layers(base)) - untouched
    return [
        module
        for path, module in base.named_modules()
        if module in frozen
        and owners[_storage(module.weight)] == 1
        and not wide.intersection(path.split("."))
        and not _is_read_at(base, path.removesuffix(".base_layer"))
    ]


def _is_read_at(base: nn.Module, path: str) -> bool:
    """True where the module above `path` uses the layer's weight instead of calling the layer, as Mamba's does."""
    owner, _, name = path.rpartition(".")
    read = _weights_read_by(cast(Any, type(base.get_submodule(owner))))
    return read is None or name in read


@cache
def _weights_read_by(kind: type[nn.Module]) -> frozenset[str] | None:
    """Names of the submodules whose weights the code of such a module reads; None where its code is not available."""
    try:
        return frozenset(re.findall(r"\.(\w+)\.weight\b", inspect.getsource(kind)))
    except (OSError, TypeError):
        return None


def _storage(tensor: Tensor) -> int:
    """An identity that tensors with shared memory have in common, also on the meta device."""
    return int(tensor.untyped_storage()._cdata)


def _round(layer: nn.Linear, spans: list[Span]) -> None:
    wide = layer.weight.data
    layer.weight.data = wide.to(torch.bfloat16)
    if not wide.is_meta:
        forget_mapped(wide, spans)
        del wide
        trim_heap()


def _onednn_forward(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        if x.dtype != torch.float32 or x.numel() == 0:
            return nn.functional.linear(x, layer.weight, layer.bias)
        product: Tensor = OneDnnLinear.apply(x, layer.weight, layer.bias)
        return product

    return forward


def _bfloat16_forward(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        product: Tensor = Bfloat16Linear.apply(x, layer.weight)
        return product if layer.bias is None else product + layer.bias

    return forward
