"""The type of the trained weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgetune.recipe.methods import Full
from edgetune.recipe.schema import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def trained_dtype(recipe: Recipe, dtype: torch.dtype) -> torch.dtype:
    """The type of the trained weights on a base that computes in `dtype`.

    auto is bfloat16 where the base computes in it and AdamW trains an adapter, with its state in 32 bits; float32
    elsewhere. float16 is never chosen: scaled gradients would overflow in it.
    """
    wanted = recipe.train.adapter_dtype
    if wanted != "auto":
        chosen: torch.dtype = getattr(torch, wanted)
        return chosen
    stable = dtype == torch.bfloat16 and recipe.train.optimizer == "adamw"
    return torch.bfloat16 if stable else torch.float32


def set_trained_dtype(model: PeftModel | PreTrainedModel, recipe: Recipe, dtype: torch.dtype) -> None:
    """Cast the trained weights. With method full they have the type of the base already."""
    if isinstance(recipe.method, Full):
        return
    wanted = trained_dtype(recipe, dtype)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(wanted)
