"""Q6_K: super-blocks of 16 × 16 weights, scale · level with levels from -32 to 31.

210 bytes: 128 with the lower 4 bits of the levels, 64 with their upper 2 bits, 16 scales of 8 bits, and the scales'
float16 unit. The upper bits of weight i of all four quarters of 128 weights share a byte; so do the lower bits of
quarters 0 and 2, and of 1 and 3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from edgetune.gguf.kernels.lanes import Floats, Ints, Pointer, floats, halves, magnitude, select
from edgetune.gguf.kernels.layout import LANES, SUPER_BLOCK
from edgetune.gguf.kernels.memory import at, copy_byte, copy_two_bytes, load, moved, store, transpose
from edgetune.gguf.kernels.rounding import half_bits, half_values, nearest, nearest_within, signed_byte
from edgetune.gguf.kernels.symmetric_search import NEGLIGIBLE, search_symmetric

BYTES = 210
TOP = 32
_LENGTH = 16
_SUB_BLOCKS = 16

# Rows of the scratch memory, each LANES wide: the weights of a sub-block and their importance; of each sub-block the
# scale that the search found, its rate (0 where all levels are -32), the scale's level, and a level's worth in the end;
# the scales' float16 bits.
_X = 0
_W = _X + _LENGTH * LANES
_SCALES = _W + _LENGTH * LANES
_RATES = _SCALES + _SUB_BLOCKS * LANES
_SCALE_LEVELS = _RATES + _SUB_BLOCKS * LANES
_UNITS = _SCALE_LEVELS + _SUB_BLOCKS * LANES
_UNIT = _UNITS + _SUB_BLOCKS * LANES


def _kernel(*, weighted: bool) -> Callable[..., None]:
    def kernel(
        x: Pointer, importance: Pointer, out: Pointer, scratch: Pointer, blocks: int, blocks_per_row: int
    ) -> None:
        for group in range((blocks + LANES - 1) // LANES):
            # The last group may overlap the previous one; it computes the same values again.
            start = min(group * LANES, blocks - LANES)
            for j in range(_SUB_BLOCKS):
                transpose(x, start * SUPER_BLOCK + j * _LENGTH, SUPER_BLOCK, moved(scratch, _X))
                if weighted:
                    column = start % blocks_per_row * SUPER_BLOCK + j * _LENGTH
                    transpose(importance, column, SUPER_BLOCK, moved(scratch, _W))
                else:
                    _weigh_squares(scratch)
                fit = search_symmetric(moved(scratch, _X), moved(scratch, _W), _LENGTH, TOP)
                store(scratch, _SCALES + j * LANES, fit.scale)
                store(scratch, _RATES + j * LANES, select(fit.empty, 0.0, fit.rate))
            _scale_levels(scratch)
            for lane in range(LANES):
                _pack(x, (start + lane) * SUPER_BLOCK, scratch, lane, out, (start + lane) * BYTES)

    return kernel


@njit(forceinline=True)
def _weigh_squares(scratch: Pointer) -> None:
    """Importance without a matrix: the weight's square."""
    for i in range(_LENGTH):
        value = load(scratch, _X + i * LANES)
        store(scratch, _W + i * LANES, value * value)


@njit(forceinline=True)
def _scale_levels(scratch: Pointer) -> None:
    """Scales in 8 bits such that the largest has level -128, and their decoded values."""
    extreme = floats(0.0)
    for j in range(_SUB_BLOCKS):
        scale = load(scratch, _SCALES + j * LANES)
        extreme = select(magnitude(scale) > magnitude(extreme), scale, extreme)
    empty = magnitude(extreme) < NEGLIGIBLE
    rate = np.float32(-128) / extreme
    unit = select(empty, 0, half_bits(np.float32(1) / rate))
    store(scratch, _UNIT, unit)
    for j in range(_SUB_BLOCKS):
        level = nearest(rate * load(scratch, _SCALES + j * LANES))
        level = select(empty, 0, select(level < 127, level, 127))
        store(scratch, _SCALE_LEVELS + j * LANES, level)
        store(scratch, _UNITS + j * LANES, half_values(unit) * signed_byte(level))
        store(scratch, _RATES + j * LANES, select(empty, 0.0, load(scratch, _RATES + j * LANES)))


@njit(forceinline=True)
def _pack(x: Pointer, start: int, scratch: Pointer, lane: int, out: Pointer, place: int) -> None:
    """Write the super-block in `lane`, whose weights begin at `start`."""
    for half in range(2):
        first = _levels(x, start, scratch, lane, 4 * half)
        second = _levels(x, start, scratch, lane, 4 * half + 1)
        third = _levels(x, start, scratch, lane, 4 * half + 2)
        fourth = _levels(x, start, scratch, lane, 4 * half + 3)
        store(out, place + 64 * half, (first & 15) | ((third & 15) << 4))
        store(out, place + 64 * half + 32, (second & 15) | ((fourth & 15) << 4))
        upper = (first >> 4) | (second >> 4 << 2) | (third >> 4 << 4) | (fourth >> 4 << 6)
        store(out, place + 128 + 32 * half, upper)
    for j in range(_SUB_BLOCKS):
        copy_byte(scratch, _SCALE_LEVELS + j * LANES + lane, out, place + 192 + j)
    copy_two_bytes(scratch, _UNIT + lane, out, place + 208)


@njit(forceinline=True)
def _levels(x: Pointer, start: int, scratch: Pointer, lane: int, pair: int) -> Ints:
    """Final levels, plus 32, of the weights of two neighbouring sub-blocks."""
    weights = load(x, start + pair * LANES)
    units = _of_pair(scratch, _UNITS, lane, pair)
    levels = nearest_within(weights / units, -TOP, TOP - 1)
    if at(scratch, _UNITS + 2 * pair * LANES + lane) == np.float32(0) or at(
        scratch, _UNITS + (2 * pair + 1) * LANES + lane
    ) == np.float32(0):
        # The scale is 0: keep the search's own levels.
        rates = _of_pair(scratch, _RATES, lane, pair)
        searched = select(rates == 0.0, -TOP, nearest_within(rates * weights, -TOP, TOP - 1))
        levels = select(units == 0.0, searched, levels)
    return levels + TOP


@njit(forceinline=True)
def _of_pair(scratch: Pointer, rows: int, lane: int, pair: int) -> Floats:
    first = at(scratch, rows + 2 * pair * LANES + lane)
    return halves(first, at(scratch, rows + (2 * pair + 1) * LANES + lane))


plain = _kernel(weighted=False)
weighted = _kernel(weighted=True)
