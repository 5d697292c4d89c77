"""Attention on meta tensors with the memory of PyTorch's fused kernels, which training uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class FusedAttention(TorchFunctionMode):
    """While it is open, scaled dot-product attention on meta tensors keeps no attention matrix where kernels keep none.

    Without it, PyTorch decomposes attention into products and a softmax. The fused kernels keep queries, keys, values,
    the result and one number per row; they do not support dropout.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention and args[0].is_meta:
            return _fused(func, *args, **kwargs)
        return func(*args, **kwargs)


def _fused(
    plain: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    learned_mask = attn_mask is not None and attn_mask.requires_grad
    if dropout_p > 0 or learned_mask or query.shape[-1] != value.shape[-1]:
        return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.empty(attn_mask.shape, dtype=query.dtype, device="meta")
    attended: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale
    )[0]
    return attended
