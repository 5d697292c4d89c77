"""The matrix products of frozen linear layers on a CPU: by oneDNN in float32, and in bfloat16.

Their weights W are not trained, so their backward pass gives the gradient of x alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def _has_bfloat16() -> bool:
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


HAS_BFLOAT16 = _has_bfloat16()
"""True where oneDNN multiplies in bfloat16 on this CPU: with AVX-512 or AMX on x86-64, with BF16 on Arm."""


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·Wᵀ + b by oneDNN, all in float32."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def bfloat16_product(x: Tensor, weight: Tensor) -> Tensor:
    """x·Wᵀ in float32 for a W of bfloat16: x and the result are rounded to bfloat16, sums are float32.

    A CPU without bfloat16 products multiplies the same rounded numbers in float32, because PyTorch's own bfloat16 loops
    are many times slower there. The results are the same on every machine, except for the order of additions.
    """
    narrow = x.to(torch.bfloat16)
    if HAS_BFLOAT16:
        return nn.functional.linear(narrow, weight).float()
    return nn.functional.linear(narrow.float(), weight.float()).bfloat16().float()


class OneDnnLinear(torch.autograd.Function):
    """y = x·Wᵀ + b in float32, by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return onednn_product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return onednn_product(gradient, weight.t()), None, None


class Bfloat16Linear(torch.autograd.Function):
    """y = x·Wᵀ in float32 for a W of bfloat16. Only the bfloat16 form of W is kept until the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return bfloat16_product(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return bfloat16_product(gradient, weight.t()), None
