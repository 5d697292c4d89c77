"""Converts between NumPy arrays of weights (BF16 as uint16) and torch tensors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def torch_dtype(dtype: str) -> torch.dtype:
    """torch's type for safetensors' name of a type."""
    import torch

    return {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]


def dtype_word(dtype: torch.dtype) -> str:
    """Safetensors' name for one of torch's float types."""
    import torch

    return {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]


def copy_to_torch(array: np.ndarray, dtype: str) -> torch.Tensor:
    """A new tensor with the values of `array`, whose type is `dtype` by safetensors' name."""
    import torch

    tensor = torch.empty(array.shape, dtype=torch_dtype(dtype))
    as_array(tensor)[...] = array
    return tensor


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's memory as an array, BF16 as uint16; a copy only where it is not contiguous."""
    import torch

    data = tensor.detach().contiguous()
    return data.view(torch.uint16).numpy() if data.dtype == torch.bfloat16 else data.numpy()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Limit torch, where it is loaded, to one thread, for code that already runs a worker per core."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
