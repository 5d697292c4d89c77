"""Q8_0: blocks of 32 weights, scale · level with levels from -127 to 127. 34 bytes: the float16 scale, the levels."""

from __future__ import annotations

import numpy as np
from numba import njit

from edgetune.gguf.kernels.lanes import Floats, Ints, Pointer, bits, largest, magnitude, select, to_ints
from edgetune.gguf.kernels.layout import BLOCK, LANES
from edgetune.gguf.kernels.memory import at, copy_two_bytes, load, put, store
from edgetune.gguf.kernels.rounding import half_bits

BYTES = 34

_EXTREMES = 0
_RATES = LANES
_SCALES = 2 * LANES

_BELOW_HALF = np.float32(0.49999997)
"""The float next to 0.5: added before the fraction is cut off, it rounds halves away from zero and nothing else up."""


def plain(x: Pointer, _importance: Pointer, out: Pointer, scratch: Pointer, blocks: int, _blocks_per_row: int) -> None:
    """The kernel (see compiled.py). Importance changes nothing in this type."""
    for group in range((blocks + LANES - 1) // LANES):
        # The last group may overlap the one before it; it computes the same again.
        start = min(group * LANES, blocks - LANES)
        for lane in range(LANES):
            weights = load(x, (start + lane) * BLOCK)
            put(scratch, _EXTREMES + lane, largest(bits(magnitude(weights))))
        scale = load(scratch, _EXTREMES) / np.float32(127)
        store(scratch, _RATES, select(scale == 0.0, 0.0, np.float32(1) / scale))
        store(scratch, _SCALES, half_bits(scale))
        for lane in range(LANES):
            place = (start + lane) * BYTES
            copy_two_bytes(scratch, _SCALES + lane, out, place)
            weights = load(x, (start + lane) * BLOCK)
            store(out, place + 2, _rounded(weights * at(scratch, _RATES + lane)))


@njit(forceinline=True)
def _rounded(values: Floats) -> Ints:
    """roundf, and 0 for what the conversion to 8 bits makes 0 because it is far too large."""
    size = magnitude(values)
    level = to_ints(select(size < np.float32(1024), size, 0.0) + _BELOW_HALF)
    return select(bits(values) < 0, 0 - level, level)
