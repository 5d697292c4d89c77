"""edgetune's own kernels: loading, calling, and the comparison with ggml."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.gguf.kernels.cache import cached, keep
from edgetune.gguf.kernels.layout import LANES, SCRATCH_ROWS
from edgetune.gguf.kernels.machine import LoadedKernel
from edgetune.gguf.kernels.native import ggml_quantize

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType

_WITHOUT_IMPORTANCE = ("Q8_0",)
_OWN = ("Q4_K", "Q5_K", "Q6_K", "Q5_0", *_WITHOUT_IMPORTANCE)
_PROOF_WEIGHTS = 2**16


@dataclass(frozen=True)
class OwnKernel:
    """A compiled kernel and the length of its blocks."""

    loaded: LoadedKernel
    block_length: int

    def quantize(self, rows: np.ndarray, out: np.ndarray, importance: np.ndarray | None) -> None:
        """Quantize float32 `rows` (n, k) into uint8 `out` (n, row_bytes) with `importance` (k,) float32, if any."""
        import numpy as np

        count, length = rows.shape
        per_row = length // self.block_length
        enough = -(-LANES // per_row)
        if count < enough:
            # There are fewer blocks than lanes.
            padded = np.zeros((enough, length), np.float32)
            padded[:count] = rows
            padded_out = np.empty((enough, out.shape[1]), np.uint8)
            self.quantize(padded, padded_out, importance)
            out[:] = padded_out[:count]
            return
        weights = None if importance is None else np.resize(importance, (per_row + LANES) * self.block_length)
        scratch = np.empty((SCRATCH_ROWS, LANES), np.float32)
        self.loaded.call(
            rows.ctypes.data,
            None if weights is None else weights.ctypes.data,
            out.ctypes.data,
            scratch.ctypes.data,
            count * per_row,
            per_row,
        )


_found: dict[str, OwnKernel | None] = {}
_finding = threading.Lock()


def find_kernel(kind: GGMLQuantizationType, *, importance: bool) -> OwnKernel | None:
    """The kernel of a type, compiled if necessary; None if ggml quantizes this type."""
    name = _kernel_name(kind, importance=importance)
    if name is None:
        return None
    if name not in _found:
        with _finding:
            if name not in _found:
                _found[name] = _load_proven(kind, name, importance=importance)
    return _found[name]


def is_compiled(kind: GGMLQuantizationType, *, importance: bool) -> bool:
    """False if `find_kernel` has to compile."""
    name = _kernel_name(kind, importance=importance)
    return name is None or name in _found or cached(name) is not None


def _kernel_name(kind: GGMLQuantizationType, *, importance: bool) -> str | None:
    if kind.name not in _OWN:
        return None
    return f"{kind.name.lower()}.{'weighted' if importance and kind.name not in _WITHOUT_IMPORTANCE else 'plain'}"


def _load_proven(kind: GGMLQuantizationType, name: str, *, importance: bool) -> OwnKernel | None:
    """None if ggml gives other bytes for a sample. On processors other than x86-64, compilers fuse multiplications and
    additions by default; ggml's own kernels are then used."""
    from gguf import GGML_QUANT_SIZES

    code = cached(name)
    if code is None:
        from edgetune.gguf.kernels.compiler import compile_kernel

        module, _, function = name.partition(".")
        code = compile_kernel(module, function, name)
        keep(name, code)
    block_length, block_bytes = GGML_QUANT_SIZES[kind]
    kernel = OwnKernel(LoadedKernel(code, name), block_length)
    return kernel if _agrees(kernel, kind, block_bytes, importance=importance) else None


def _agrees(kernel: OwnKernel, kind: GGMLQuantizationType, block_bytes: int, *, importance: bool) -> bool:
    """Compare on weights with few different values, half of them far from zero: the search's candidates are then close,
    and sums with other rounding (fused operations) select other candidates in every type with a search."""
    import numpy as np

    places = np.arange(_PROOF_WEIGHTS, dtype=np.uint32)
    levels = (places * (places ^ 0x9E37) * np.uint32(0x85EBCA6B) >> np.uint32(15)) % np.uint32(64)
    sample = ((levels - 32.0) * 0.013).astype(np.float32)
    sample[_PROOF_WEIGHTS // 2 :] += 10
    weights = np.square(np.cos(places)).astype(np.float32) if importance else None
    own, reference = np.empty((2, 1, _PROOF_WEIGHTS // kernel.block_length * block_bytes), np.uint8)
    kernel.quantize(sample[None], own, weights)
    ggml_quantize(kind, sample[None], reference, weights)
    return np.array_equal(own, reference)
