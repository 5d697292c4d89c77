"""In which type the trained weights are kept."""

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

    auto is bfloat16 where the base computes in it and AdamW, which then keeps its copies in 32 bits, trains an adapter;
    float32 elsewhere. float16 is never taken: updates of gradients that are scaled would overflow in it.
    """
    wanted = recipe.train.adapter_dtype
    if wanted != "auto":
        chosen: torch.dtype = getattr(torch, wanted)
        return chosen
    stable = dtype == torch.bfloat16 and recipe.train.optimizer == "adamw"
    return torch.bfloat16 if stable else torch.float32


def set_trained_dtype(model: PeftModel | PreTrainedModel, recipe: Recipe, dtype: torch.dtype) -> None:
    """Cast what is trained. Where every weight is, all have one type, which the base loaded in already has."""
    if isinstance(recipe.method, Full):
        return
    wanted = trained_dtype(recipe, dtype)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(wanted)
