"""Rows of ids of different lengths -> one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_rows(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Tensor:
    """The rows, filled up with `value` on the right (or the left) to the longest (rows, longest)."""
    width = max(map(len, rows))
    fillings = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*fill, *row] if left else [*row, *fill] for row, fill in zip(rows, fillings, strict=True)])


def attention_mask(rows: Sequence[Sequence[int]], *, left: bool = False) -> Tensor:
    """1 where `pad_rows` puts the rows' own ids, 0 where it fills up (rows, longest)."""
    return pad_rows([[1] * len(row) for row in rows], 0, left=left)
