"""The common part of Q4_K and Q5_K: from LANES super-blocks of weights to bytes, without packing the levels.

The search runs in lanes across super-blocks, because each of its sums must be taken in the order of the weights.
Rounding to the final levels has no order, so there the 32 weights of one sub-block are the lanes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from edgetune.gguf.kernels.affine_search import search_affine
from edgetune.gguf.kernels.block_scales import SUB_BLOCKS, TOP, largest_scaled, weighted_scaled
from edgetune.gguf.kernels.lanes import Floats, Ints, Pointer, bits, floats, ints, magnitude, square_root, to_floats
from edgetune.gguf.kernels.layout import BLOCK, LANES, SUPER_BLOCK
from edgetune.gguf.kernels.memory import at, copy_four_bytes, load, moved, store, transpose
from edgetune.gguf.kernels.rounding import clamp, half_bits, half_values, nearest_within

HEADER_BYTES = 16

# Rows of the scratch memory, each LANES wide: the weights of a sub-block, their importance, levels; then of each
# sub-block scale, offset, importance, and rate and base of its levels; then levels of scales and offsets, the header as
# four 32-bit words, and the decoded values of a level and an offset of each sub-block.
_X = 0
_W = _X + BLOCK * LANES
_LEVELS = _W + BLOCK * LANES
_SCALES = _LEVELS + BLOCK * LANES
_OFFSETS = _SCALES + SUB_BLOCKS * LANES
_SUMS = _OFFSETS + SUB_BLOCKS * LANES
_RATES = _SUMS + SUB_BLOCKS * LANES
_BASES = _RATES + SUB_BLOCKS * LANES
_SCALE_LEVELS = _BASES + SUB_BLOCKS * LANES
_OFFSET_LEVELS = _SCALE_LEVELS + SUB_BLOCKS * LANES
_HEADER = _OFFSET_LEVELS + SUB_BLOCKS * LANES
_UNITS = _HEADER + 4 * LANES
_SHIFTS = _UNITS + SUB_BLOCKS * LANES


def affine_kernel(
    block_bytes: int,
    top: int,
    pack: Callable[..., None],
    *,
    first: float,
    step: float,
    candidates: int,
    weighted: bool = False,
    limited: bool = True,
) -> Callable[..., None]:
    """A kernel (see compiled.py) for super-blocks of `block_bytes` with levels up to `top`, written by `pack`.

    `weighted` kernels use importance weights; `limited` says whether levels of scales beyond 63 are then cut.
    """

    def kernel(
        x: Pointer, importance: Pointer, out: Pointer, scratch: Pointer, blocks: int, blocks_per_row: int
    ) -> None:
        for group in range((blocks + LANES - 1) // LANES):
            # The last group may overlap the previous one; it computes the same values again.
            start = min(group * LANES, blocks - LANES)
            spread = double_mean_squares(x, start, scratch) if weighted else floats(0.0)
            for j in range(SUB_BLOCKS):
                column = start * SUPER_BLOCK + j * BLOCK
                load_block(x, column, scratch)
                if weighted:
                    column = start % blocks_per_row * SUPER_BLOCK + j * BLOCK
                    total = weigh_columns(importance, column, scratch, spread)
                else:
                    total = weigh_magnitudes(scratch)
                fit = search_affine(
                    moved(scratch, _X), moved(scratch, _W), moved(scratch, _LEVELS), top, first, step, candidates
                )
                store(scratch, _SUMS + j * LANES, total)
                store(scratch, _SCALES + j * LANES, fit.scale)
                store(scratch, _OFFSETS + j * LANES, 0.0 - fit.minimum)
                store(scratch, _RATES + j * LANES, fit.rate)
                store(scratch, _BASES + j * LANES, fit.base)
            scales, offsets, sums = moved(scratch, _SCALES), moved(scratch, _OFFSETS), moved(scratch, _SUMS)
            scale_levels, offset_levels = moved(scratch, _SCALE_LEVELS), moved(scratch, _OFFSET_LEVELS)
            if weighted:
                scale_unit = weighted_scaled(scales, sums, scale_levels)
                offset_unit = weighted_scaled(offsets, sums, offset_levels)
                if limited:
                    limit(scale_levels)
                    limit(offset_levels)
            else:
                scale_unit = largest_scaled(scales, scale_levels)
                offset_unit = largest_scaled(offsets, offset_levels)
            write_header(scratch, half_bits(scale_unit), half_bits(offset_unit))
            for lane in range(LANES):
                place = (start + lane) * block_bytes
                for word in range(4):
                    copy_four_bytes(scratch, _HEADER + word * LANES + lane, out, place + 4 * word)
                pack(x, (start + lane) * SUPER_BLOCK, scratch, lane, out, place)

    return kernel


@njit(forceinline=True)
def load_block(x: Pointer, start: int, scratch: Pointer) -> None:
    """Load the sub-blocks that begin at `start` in LANES consecutive super-blocks, side by side."""
    for i in range(0, BLOCK, 16):
        transpose(x, start + i, SUPER_BLOCK, moved(scratch, _X + i * LANES))


@njit(forceinline=True)
def double_mean_squares(x: Pointer, start: int, scratch: Pointer) -> Floats:
    """Twice the mean square of whole super-blocks, from number `start` on."""
    total = floats(0.0)
    for j in range(SUB_BLOCKS):
        load_block(x, start * SUPER_BLOCK + j * BLOCK, scratch)
        for i in range(BLOCK):
            value = load(scratch, _X + i * LANES)
            total += value * value
    return total * np.float32(2) / np.float32(SUPER_BLOCK)


@njit(forceinline=True)
def weigh_magnitudes(scratch: Pointer) -> Floats:
    """Importance without a matrix: the root mean square of the sub-block plus the weight's magnitude; and its sum."""
    squares = floats(0.0)
    for i in range(BLOCK):
        value = load(scratch, _X + i * LANES)
        squares += value * value
    spread = square_root(squares / np.float32(BLOCK))
    total = floats(0.0)
    for i in range(BLOCK):
        weight = spread + magnitude(load(scratch, _X + i * LANES))
        total += weight
        store(scratch, _W + i * LANES, weight)
    return total


@njit(forceinline=True)
def weigh_columns(importance: Pointer, start: int, scratch: Pointer, spread: Floats) -> Floats:
    """Importance from a matrix, times a root of twice the super-block's mean square plus the weight's; and its sum."""
    for i in range(0, BLOCK, 16):
        transpose(importance, start + i, SUPER_BLOCK, moved(scratch, _W + i * LANES))
    total = floats(0.0)
    for i in range(BLOCK):
        value = load(scratch, _X + i * LANES)
        weight = load(scratch, _W + i * LANES) * square_root(spread + value * value)
        total += weight
        store(scratch, _W + i * LANES, weight)
    return total


@njit(forceinline=True)
def limit(levels: Pointer) -> None:
    """Cut levels of scales at 63."""
    for j in range(SUB_BLOCKS):
        store(levels, j * LANES, clamp(bits(load(levels, j * LANES)), 0, TOP))


@njit(forceinline=True)
def write_header(scratch: Pointer, scale_unit: Ints, offset_unit: Ints) -> None:
    """Pack units (float16 bits) and levels as four words, and store their decoded values."""
    store(scratch, _HEADER, scale_unit | (offset_unit << 16))
    low, middle, high = ints(0), ints(0), ints(0)
    for j in range(4):
        scale, offset = _levels(scratch, j)
        scale_above, offset_above = _levels(scratch, j + 4)
        # Sub-blocks 4 to 7: the lower 4 bits of both levels share a byte; the upper 2 bits are stored above the first
        # four's levels.
        low_byte = (scale | (scale_above >> 4 << 6)) & 0xFF
        middle_byte = (offset | (offset_above >> 4 << 6)) & 0xFF
        high_byte = (scale_above & 15) | ((offset_above & 15) << 4)
        low = low | (low_byte << 8 * j)
        middle = middle | (middle_byte << 8 * j)
        high = high | (high_byte << 8 * j)
        _remember(scratch, j, scale_unit, offset_unit, low_byte & 63, middle_byte & 63)
        scale = (high_byte & 15) | (low_byte >> 6 << 4)
        offset = (high_byte >> 4) | (middle_byte >> 6 << 4)
        _remember(scratch, j + 4, scale_unit, offset_unit, scale, offset)
    store(scratch, _HEADER + LANES, low)
    store(scratch, _HEADER + 2 * LANES, middle)
    store(scratch, _HEADER + 3 * LANES, high)


@njit(forceinline=True)
def _levels(scratch: Pointer, j: int) -> tuple[Ints, Ints]:
    return bits(load(scratch, _SCALE_LEVELS + j * LANES)), bits(load(scratch, _OFFSET_LEVELS + j * LANES))


@njit(forceinline=True)
def _remember(scratch: Pointer, j: int, scale_unit: Ints, offset_unit: Ints, scale: Ints, offset: Ints) -> None:
    store(scratch, _UNITS + j * LANES, half_values(scale_unit) * to_floats(scale))
    store(scratch, _SHIFTS + j * LANES, half_values(offset_unit) * to_floats(offset))


@njit(forceinline=True)
def levels_of(x: Pointer, start: int, scratch: Pointer, lane: int, j: int, top: int) -> Ints:
    """The final levels of sub-block `j` of the super-block in `lane`, whose weights begin at `start`."""
    weights = load(x, start + j * BLOCK)
    unit = at(scratch, _UNITS + j * LANES + lane)
    if unit == np.float32(0):
        # The scale's level is 0: keep the search's own levels.
        rate, base = at(scratch, _RATES + j * LANES + lane), at(scratch, _BASES + j * LANES + lane)
        return nearest_within(rate * (weights - base), 0, top)
    return nearest_within((weights + at(scratch, _SHIFTS + j * LANES + lane)) / unit, 0, top)
