"""A recipe's model with its adapter on the meta device: the modules, shapes and types of training, without weights."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgetune.models.families import ModelKind, auto_class, kind_of
from edgetune.models.load import head_modules, quantization_config
from edgetune.planning.base import PlannedBase
from edgetune.planning.packed import quantization_constants_bytes, quantize_on_meta
from edgetune.recipe.methods import Full
from edgetune.recipe.schema import Recipe
from edgetune.training.backends.transformers import ready_for_adapter
from edgetune.training.prepare import check_task

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Skeleton:
    """The trainable model on the meta device, and its parameter counts."""

    model: PeftModel | PreTrainedModel
    kind: ModelKind
    dtype: torch.dtype
    total_steps: int | None
    trainable_parameters: int
    total_parameters: int
    loaded_bytes: int | None = None
    """Bytes of the frozen weights as they are loaded, where frozen layers are rounded to bfloat16 afterwards."""

    @property
    def trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @property
    def trained_bytes(self) -> int:
        """Bytes of the trained parameters, and of their gradients."""
        return sum(_nbytes(parameter) for parameter in self.trained)

    @property
    def frozen_bytes(self) -> int:
        """Bytes of everything that is not trained, buffers included; each shared tensor once."""
        held = {id(tensor): tensor for tensor in (*self.model.parameters(), *self.model.buffers())}
        return sum(_nbytes(tensor) for tensor in held.values() if not tensor.requires_grad)

    @property
    def largest_block_bytes(self) -> int:
        """Bytes of the largest layer, which FSDP gathers from all devices to compute it."""
        layers = [layer for stack in self.model.modules() if isinstance(stack, nn.ModuleList) for layer in stack]
        return max((sum(_nbytes(weight) for weight in layer.parameters()) for layer in layers), default=0)

    @property
    def constants_bytes(self) -> int:
        return quantization_constants_bytes(self.model)


def build_skeleton(recipe: Recipe, base: PlannedBase, *, dtype: torch.dtype, total_steps: int | None) -> Skeleton:
    """The model that training would use, without values. `total_steps` is the length of AdaLoRA's schedule.

    Raises RecipeError where the method does not suit the base.
    """
    from edgetune.training.precision import set_trained_dtype
    from edgetune.training.saving import count_parameters

    kind = kind_of(base.config.model_type)
    check_task(recipe, kind, base.config.model_type)
    model: PeftModel | PreTrainedModel = _base(recipe, base, dtype)
    if not isinstance(recipe.method, Full):
        try:
            with torch.device("meta"):
                model = _adapted(model, recipe, total_steps)
        except RuntimeError:  # a method that computes with values while it is made: its own parameters are real then
            model = _adapted(_base(recipe, base, dtype), recipe, total_steps)
    set_trained_dtype(model, recipe, dtype)
    return Skeleton(model, kind, dtype, total_steps, *count_parameters(model))


def in_bfloat16(skeleton: Skeleton) -> Skeleton:
    """`skeleton` with frozen layers in bfloat16. Its model is changed in place."""
    from edgetune.training.frozen_layers import Products, use_products

    loaded = skeleton.frozen_bytes
    use_products(skeleton.model, Products(bfloat16=True))
    return replace(skeleton, loaded_bytes=loaded)


def _adapted(model: PreTrainedModel, recipe: Recipe, total_steps: int | None) -> PeftModel:
    from edgetune.models.adapters import add_adapter

    return add_adapter(
        model,
        recipe.method,
        base=recipe.base.model,
        classifies=recipe.base.head == "classification",
        total_steps=total_steps,
    )


def _base(recipe: Recipe, base: PlannedBase, dtype: torch.dtype) -> PreTrainedModel:
    """The frozen base, before the adapter is added."""
    config, classifies = deepcopy(base.config), recipe.base.head == "classification"
    if classifies:
        config.num_labels = len(recipe.data.labels)
        config.pad_token_id = config.pad_token_id or 0
    with torch.device("meta"):
        model: PreTrainedModel = auto_class(config.model_type, classifies=classifies).from_config(config, dtype=dtype)
        if _has_own_output(base):
            output = model.get_output_embeddings()
            output.weight = nn.Parameter(torch.empty_like(output.weight))
        if recipe.base.quantize != "none":
            untouched = head_modules(model) if classifies else None
            settings = quantization_config(recipe.base.quantize, dtype, recipe.base.double_quantization, untouched)
            quantize_on_meta(model, settings)
        if dtype == torch.float16:
            _keep_in_float32(model)
        return ready_for_adapter(model, recipe)


def _has_own_output(base: PlannedBase) -> bool:
    """True where the output layer is not the input embedding although the configuration ties them.

    Transformers keeps them apart when a checkpoint does. Its T5 configuration always ties them; where config.json says
    otherwise, as FLAN-T5's does, it sets `scale_decoder_outputs` to false.
    """
    if base.files is not None and base.stored:
        return {"lm_head.weight", "shared.weight"} <= base.stored
    return base.config.model_type == "t5" and getattr(base.config, "scale_decoder_outputs", None) is False


def _keep_in_float32(model: PreTrainedModel) -> None:
    """Keep in 32 bits what Transformers does because float16 overflows, such as T5's second feed-forward layer."""
    kept = tuple(model._keep_in_fp32_modules or ())
    for path, module in model.named_modules():
        if path.rsplit(".", 1)[-1] in kept and isinstance(module, nn.Linear) and module.weight.is_floating_point():
            module.float()


def _nbytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
