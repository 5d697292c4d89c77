"""ggml's own quantizer from llama-cpp-python's library: every type, without Python's lock."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType


def ggml_quantize(
    kind: GGMLQuantizationType, rows: np.ndarray, out: np.ndarray, importance: np.ndarray | None = None
) -> None:
    """Quantize float32 `rows` (n, k) into uint8 `out` (n, row_bytes), with `importance` (k,) float32 where it is used.

    Raises ValueError if the type needs importance and there is none: ggml would abort the process.
    """
    library = open_ggml()
    if importance is None and library.ggml_quantize_requires_imatrix(int(kind)):
        raise ValueError(f"{kind.name} cannot be quantized without importance")
    weights = None if importance is None else importance.ctypes.data
    library.ggml_quantize_chunk(int(kind), rows.ctypes.data, out.ctypes.data, 0, *rows.shape, weights)


@lru_cache(maxsize=1)
def open_ggml() -> Any:
    """libggml-base alone: importing llama_cpp would load the rest of llama.cpp with it."""
    library = ctypes.CDLL(str(_library_file()))
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        *[ctypes.c_void_p] * 2,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_requires_imatrix.argtypes = [ctypes.c_int]
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    return library


def _library_file() -> Path:
    package = importlib.util.find_spec("llama_cpp")
    assert package is not None
    assert package.origin is not None
    # llama-cpp-python's own variable for libraries that were built elsewhere.
    folder = Path(os.environ.get("LLAMA_CPP_LIB_PATH") or Path(package.origin).parent / "lib")
    names = {"win32": ("ggml-base.dll",), "darwin": ("libggml-base.dylib", "libggml-base.so")}
    files = [folder / name for name in names.get(sys.platform, ("libggml-base.so",))]
    return next((file for file in files if file.exists()), files[0])
