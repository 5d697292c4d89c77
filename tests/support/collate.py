"""Tokenized examples -> one padded batch as Transformers' own models take it, to compare ours with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgetune.data.tokenize import UNSUPERVISED, TokenizedExample

if TYPE_CHECKING:
    from torch import Tensor


def collate(batch: Sequence[TokenizedExample], pad_token_id: int, multiple_of: int = 1) -> dict[str, Tensor]:
    """Pad a batch on the right to its longest example, rounded up to `multiple_of` tokens.

    Returns int64 tensors of shape (examples, tokens): input_ids, attention_mask (1 where there is text) and labels
    (-100 where unsupervised or padding).
    """
    import torch

    longest = max(len(example.input_ids) for example in batch)
    width = -(-longest // multiple_of) * multiple_of
    padding = [width - len(example.input_ids) for example in batch]
    rows = list(zip(batch, padding, strict=True))
    return {
        "input_ids": torch.tensor([[*example.input_ids, *[pad_token_id] * pad] for example, pad in rows]),
        "attention_mask": torch.tensor([[1] * (width - pad) + [0] * pad for pad in padding]),
        "labels": torch.tensor([[*example.labels, *[UNSUPERVISED] * pad] for example, pad in rows]),
    }
