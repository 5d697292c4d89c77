"""Q4_K: super-blocks of 8 × 32 weights, scale · level − minimum with 4-bit levels.

144 bytes: float16 units of the scales and of the minimums, 8 + 8 of those in 6 bits each (12 bytes), 128 bytes of
levels, a byte holding those of two sub-blocks, the first in its lower half.
"""

from __future__ import annotations

from numba import njit

from edgetune.gguf.kernels.affine_blocks import HEADER_BYTES, affine_kernel, levels_of
from edgetune.gguf.kernels.lanes import Pointer
from edgetune.gguf.kernels.memory import store

BYTES = 144
TOP = 15


@njit(forceinline=True)
def pack(x: Pointer, start: int, scratch: Pointer, lane: int, out: Pointer, place: int) -> None:
    """Write the levels of one super-block behind its header."""
    for pair in range(4):
        first = levels_of(x, start, scratch, lane, 2 * pair, TOP)
        second = levels_of(x, start, scratch, lane, 2 * pair + 1, TOP)
        store(out, place + HEADER_BYTES + 32 * pair, first | (second << 4))


# Candidates as quantize_row_q4_K_ref and quantize_row_q4_K_impl choose them.
plain = affine_kernel(BYTES, TOP, pack, first=-1.0, step=0.1, candidates=21)
weighted = affine_kernel(BYTES, TOP, pack, first=-0.9, step=0.05, candidates=37, weighted=True, limited=False)
