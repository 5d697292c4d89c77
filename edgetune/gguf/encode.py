"""Conversion of stored values to float32 and to the intermediate float type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.errors import NumericalError

if TYPE_CHECKING:
    import numpy as np


def to_float32(stored: np.ndarray) -> np.ndarray:
    """Exact float32 values of an array in a stored type; bfloat16 travels as uint16, its upper half."""
    import numpy as np

    if stored.dtype == np.uint16:
        values = np.empty(stored.shape, np.float32)
        bits = values.view(np.uint32)
        np.left_shift(stored, 16, out=bits, dtype=np.uint32, casting="unsafe")
        return values
    return np.ascontiguousarray(stored, dtype=np.float32)


def round_to(values: np.ndarray, outtype: str, name: str) -> np.ndarray:
    """Float32 `values` rounded to F32, F16 or BF16, halves to even, as in llama.cpp's converter.

    Raises NumericalError naming the tensor if a value is beyond float16's range.
    """
    import numpy as np
    from gguf import GGMLQuantizationType

    from edgetune.gguf.kernels import quantize_rows

    if outtype == "F32":
        return values
    if outtype == "F16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.isinf(half).any():
            raise NumericalError(
                f"{name} has values beyond float16's range", remedy="export with --outtype bf16 or --outtype f32"
            )
        return half.astype(np.float32)
    rows = values.reshape(-1, values.shape[-1])
    return to_float32(quantize_rows(GGMLQuantizationType.BF16, rows).view(np.uint16)).reshape(values.shape)
