"""What an optimizer keeps beside the weights that it trains."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from edgetune.recipe.schema import Recipe

if TYPE_CHECKING:
    from torch import nn

_SMALLEST_IN_8_BITS = 4096
"""bitsandbytes keeps the state of smaller parameters in 32 bits."""

_BLOCK_OF_8_BITS = 256
"""Numbers of 8 bits that share one 32-bit scale."""


def optimizer_bytes(recipe: Recipe, trained: Iterable[nn.Parameter]) -> int:
    """Of the state that the recipe's optimizer keeps between updates."""
    return sum(_state_bytes(recipe.train.optimizer, parameter) for parameter in trained)


def update_bytes(recipe: Recipe, trained: Iterable[nn.Parameter]) -> int:
    """What an update makes and frees again: with AdamW on 16-bit weights, 32-bit gradients and denominators."""
    if recipe.train.optimizer != "adamw":
        return 0
    return sum(2 * 4 * parameter.numel() for parameter in trained if parameter.dtype == torch.bfloat16)


def _state_bytes(optimizer: str, parameter: nn.Parameter) -> int:
    count = parameter.numel()
    if optimizer == "sgd":
        return 0
    if optimizer == "adamw":  # PreciseAdamW keeps a 32-bit copy of 16-bit weights
        return 12 * count if parameter.dtype == torch.bfloat16 else 2 * parameter.element_size() * count
    if optimizer == "adafactor":
        if parameter.dim() < 2:
            return 4 * count
        *others, rows, columns = parameter.shape
        return 4 * math.prod(others) * (rows + columns)
    if optimizer.endswith("8bit") and count >= _SMALLEST_IN_8_BITS:
        return 2 * (count + 4 * math.ceil(count / _BLOCK_OF_8_BITS))
    return 8 * count
