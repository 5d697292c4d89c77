"""Q5_0: blocks of 32 weights, scale · level with levels from -16 to 15, stored plus 16.

22 bytes: the float16 scale, the fifth bits of the 32 levels, and their lower 4 bits, weight i together with weight
16 + i.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from edgetune.gguf.kernels.lanes import (
    Ints,
    Pointer,
    bits,
    first_lane,
    largest,
    magnitude,
    second_half,
    select,
    square_root,
    to_ints,
)
from edgetune.gguf.kernels.layout import BLOCK, LANES
from edgetune.gguf.kernels.memory import (
    at,
    copy_two_bytes,
    load,
    moved,
    put,
    store,
    store_first_half,
    store_mask,
    transpose,
)
from edgetune.gguf.kernels.rounding import half_bits, nearest_within
from edgetune.gguf.kernels.symmetric_search import search_symmetric

BYTES = 22
TOP = 16

# Rows of the scratch memory, each LANES wide: of each block the weight of the largest magnitude or its row's mean
# square, the scale's float16 bits, and the rate that its levels come from (0 where all of them are -16); then its
# weights and their importance.
_EXTREMES = _MEAN_SQUARES = 0
_SCALES = LANES
_RATES = 2 * LANES
_X = 3 * LANES
_W = _X + BLOCK * LANES


def plain(x: Pointer, _importance: Pointer, out: Pointer, scratch: Pointer, blocks: int, _blocks_per_row: int) -> None:
    """The kernel without importance (see compiled.py): the weight of the largest magnitude has level -16."""
    for group in range((blocks + LANES - 1) // LANES):
        # The last group may overlap the one before it; it computes the same again.
        start = min(group * LANES, blocks - LANES)
        for lane in range(LANES):
            first = (start + lane) * BLOCK
            sizes = bits(magnitude(load(x, first)))
            put(scratch, _EXTREMES + lane, at(x, first + first_lane(sizes == largest(sizes))))
        extreme = load(scratch, _EXTREMES)
        # The scale of a block of zeros is minus zero, whatever their sign.
        scale = select(extreme == 0.0, 0.0, extreme) / np.float32(-TOP)
        store(scratch, _RATES, select(scale == 0.0, 0.0, np.float32(1) / scale))
        store(scratch, _SCALES, half_bits(scale))
        for lane in range(LANES):
            values = load(x, (start + lane) * BLOCK) * at(scratch, _RATES + lane) + np.float32(TOP + 0.5)
            # Without a bound, the conversion of values that are not finite would be undefined; in C it gives 0.
            levels = to_ints(select(magnitude(values) < np.float32(1024), values, 0.0))
            _pack(select(levels < 31, levels, 31), scratch, lane, out, (start + lane) * BYTES)


def weighted(x: Pointer, importance: Pointer, out: Pointer, scratch: Pointer, blocks: int, blocks_per_row: int) -> None:
    """The kernel with importance: the search's scale."""
    row = -1
    mean_square = np.float32(0)
    for group in range((blocks + LANES - 1) // LANES):
        # The last group may overlap the one before it; it computes the same again.
        start = min(group * LANES, blocks - LANES)
        for lane in range(LANES):
            if (start + lane) // blocks_per_row != row:
                row = (start + lane) // blocks_per_row
                mean_square = _mean_square(x, row * blocks_per_row * BLOCK, blocks_per_row * BLOCK)
            put(scratch, _MEAN_SQUARES + lane, mean_square)
        mean_squares = load(scratch, _MEAN_SQUARES)
        for i in range(0, BLOCK, 16):
            transpose(x, start * BLOCK + i, BLOCK, moved(scratch, _X + i * LANES))
            transpose(importance, start % blocks_per_row * BLOCK + i, BLOCK, moved(scratch, _W + i * LANES))
        for i in range(BLOCK):
            value = load(scratch, _X + i * LANES)
            weight = load(scratch, _W + i * LANES) * square_root(mean_squares + value * value)
            store(scratch, _W + i * LANES, weight)
        fit = search_symmetric(moved(scratch, _X), moved(scratch, _W), BLOCK, TOP)
        store(scratch, _SCALES, half_bits(fit.scale))
        store(scratch, _RATES, select(fit.empty, 0.0, fit.rate))
        for lane in range(LANES):
            rate = at(scratch, _RATES + lane)
            levels = nearest_within(rate * load(x, (start + lane) * BLOCK), -TOP, TOP - 1) + TOP
            if rate == np.float32(0):
                levels = levels & 0
            _pack(levels, scratch, lane, out, (start + lane) * BYTES)


@njit(forceinline=True)
def _mean_square(x: Pointer, start: int, count: int) -> np.float32:
    total = np.float32(0)
    for i in range(count):
        value = at(x, start + i)
        total += value * value
    return total / np.float32(count)


@njit(forceinline=True)
def _pack(levels: Ints, scratch: Pointer, lane: int, out: Pointer, place: int) -> None:
    copy_two_bytes(scratch, _SCALES + lane, out, place)
    store_mask(out, place + 2, (levels & 16) != 0)
    store_first_half(out, place + 6, (levels & 15) | ((second_half(levels) & 15) << 4))
