"""Attention on meta tensors as PyTorch's fused kernels take memory for it, which is what training runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from edgetune.training.objectives.packing import Layout, divide

ATTENTION = "edgetune_planned"


class FusedAttention(TorchFunctionMode):
    """While it is open, scaled dot-product attention on meta tensors keeps no attention matrix where kernels keep none.

    By itself PyTorch decomposes it there into products and a softmax. The fused kernels keep queries, keys, values, the
    result and one number per row; they do not take dropout.
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


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What `train.objectives.packing.packed_attention` computes, in shapes: there sizes depend on values.

    query (1, heads, t, d), key and value (1, key-value heads, t, d); returns (1, t, heads, d).
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        attended: Tensor = sdpa_attention_forward(module, q, k, v, mask, **{**options, "is_causal": True})[0]
        return attended

    if layout is None or len(layout.own) == 1:
        return attend(query, key, value, None), None
    shared = layout.shared

    def behind_shared(states: Tensor, gather: Tensor) -> Tensor:
        own = states[:, gather].transpose(0, 1)
        return torch.cat([states[:, :shared].unsqueeze(0).expand(len(own), -1, -1, -1), own], dim=2)

    pieces = []
    for members in divide(layout.own):
        lengths = [layout.own[member] for member in members]
        longest = max(lengths)
        gather = torch.empty(len(members), longest, dtype=torch.long, device="meta")
        scatter = torch.empty(sum(lengths), dtype=torch.long, device="meta")
        mask = torch.empty(len(members), 1, longest, shared + longest, dtype=torch.bool, device="meta")
        attended = attend(
            query[0][:, gather].transpose(0, 1), behind_shared(key[0], gather), behind_shared(value[0], gather), mask
        )
        pieces.append(attended.flatten(0, 1)[scatter])
    own = torch.cat(pieces).unsqueeze(0) if len(pieces) > 1 else pieces[0].unsqueeze(0)
    if shared == 0:
        return own, None
    front = attend(query[:, :, :shared], key[:, :, :shared], value[:, :, :shared], None)
    return torch.cat([front, own], dim=1), None


def use_planned_attention(model: nn.Module) -> None:
    """Let a meta model compute packed rows in shapes."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, packed_attention)
    model.set_attn_implementation(ATTENTION)
