"""Quantizes rows of weights to llama.cpp's bytes, with edgetune's own kernels for the usual types and ggml's for
others.

A kernel is written in Numba over vectors of blocks (lanes.py), compiled once (compiler.py), stored on the disk
(cache.py) and compared with ggml in every process before its first use (own.py). Start with own.py, then q4_k.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType


def quantize_rows(kind: GGMLQuantizationType, rows: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """The bytes (n, row_bytes) uint8 that ggml_quantize_chunk gives for float32 `rows` (n, k), C-contiguous.

    importance (k,) float32 weighs the columns' errors, for the types that use it. Rows are quantized independently.
    Threads can call this in parallel. Raises ValueError for arrays of another form, or if k is not a multiple of the
    type's block.
    """
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    from edgetune.gguf.kernels.native import ggml_quantize
    from edgetune.gguf.kernels.own import find_kernel

    if rows.ndim != 2 or rows.dtype != np.float32 or not rows.flags.c_contiguous:
        raise ValueError(f"rows must be a C-contiguous float32 matrix, not {rows.dtype} {rows.shape}")
    block_length, block_bytes = GGML_QUANT_SIZES[kind]
    count, length = rows.shape
    if length % block_length:
        raise ValueError(f"rows of {length} cannot be {kind.name}, whose blocks have {block_length} weights")
    if importance is not None:
        if importance.shape != (length,):
            raise ValueError(f"importance must have shape ({length},), not {importance.shape}")
        importance = np.ascontiguousarray(importance, dtype=np.float32)
    if kind == GGMLQuantizationType.F32:
        return rows.view(np.uint8)
    out = np.empty((count, length // block_length * block_bytes), np.uint8)
    if out.size:
        kernel = find_kernel(kind, importance=importance is not None)
        if kernel is None:
            ggml_quantize(kind, rows, out, importance)
        else:
            kernel.quantize(rows, out, importance)
    return out


def needs_compiling(kinds: Iterable[GGMLQuantizationType], importance: bool) -> bool:
    """True if `prepare` has to compile, which takes seconds."""
    from edgetune.gguf.kernels.own import is_compiled

    return not all(is_compiled(kind, importance=importance) for kind in kinds)


def prepare(kinds: Iterable[GGMLQuantizationType], importance: bool) -> None:
    """Load the kernels of these types; compile those that are not in this machine's cache."""
    from edgetune.gguf.kernels.own import find_kernel

    for kind in kinds:
        find_kernel(kind, importance=importance)
