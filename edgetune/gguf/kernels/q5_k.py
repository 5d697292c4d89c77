"""Q5_K: super-blocks of 8 × 32 weights, scale · level − minimum with 5-bit levels.

176 bytes: the header of Q4_K, 32 bytes with the fifth bits (bit j of byte i belongs to weight i of sub-block j), and
the lower 4 bits as in Q4_K.
"""

from __future__ import annotations

from numba import njit

from edgetune.gguf.kernels.affine_blocks import HEADER_BYTES, affine_kernel, levels_of
from edgetune.gguf.kernels.lanes import Pointer, ints
from edgetune.gguf.kernels.memory import store

BYTES = 176
TOP = 31


@njit(forceinline=True)
def pack(x: Pointer, start: int, scratch: Pointer, lane: int, out: Pointer, place: int) -> None:
    """Write the levels of one super-block behind its header."""
    fifth_bits = ints(0)
    for pair in range(4):
        first = levels_of(x, start, scratch, lane, 2 * pair, TOP)
        second = levels_of(x, start, scratch, lane, 2 * pair + 1, TOP)
        fifth_bits = fifth_bits | ((first >> 4) << 2 * pair) | ((second >> 4) << 2 * pair + 1)
        store(out, place + HEADER_BYTES + 32 + 32 * pair, (first & 15) | ((second & 15) << 4))
    store(out, place + HEADER_BYTES, fifth_bits)


# Candidates as quantize_row_q5_K_ref and quantize_row_q5_K_impl choose them.
plain = affine_kernel(BYTES, TOP, pack, first=-0.5, step=0.1, candidates=16)
weighted = affine_kernel(BYTES, TOP, pack, first=-0.9, step=0.05, candidates=37, weighted=True, limited=True)
