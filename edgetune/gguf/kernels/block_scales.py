"""The second level of Q4_K and Q5_K: 8 scales and 8 offsets of a super-block in 6 bits each, and their units.

Rows of `values` and `levels` are sub-blocks, lanes are super-blocks.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from edgetune.gguf.kernels.lanes import Floats, Pointer, bits, floats, select, to_floats
from edgetune.gguf.kernels.layout import LANES
from edgetune.gguf.kernels.memory import load, store
from edgetune.gguf.kernels.rounding import clamp, nearest
from edgetune.gguf.kernels.symmetric_search import NEGLIGIBLE

SUB_BLOCKS = 8
TOP = 63
_ATTEMPTS = 5
"""After an attempt without a change, further ones change nothing either, so there is no early stop."""


@njit(forceinline=True)
def largest_scaled(values: Pointer, levels: Pointer) -> Floats:
    """Levels such that the largest value has level 63 (quantize_row_q4_K_ref); returns the unit.

    values (8, LANES) float32; levels (8, LANES) receives int32.
    """
    largest = floats(0.0)
    for j in range(SUB_BLOCKS):
        value = load(values, j * LANES)
        largest = select(value > largest, value, largest)
    rate = select(largest > 0.0, np.float32(TOP) / largest, 0.0)
    for j in range(SUB_BLOCKS):
        level = nearest(rate * load(values, j * LANES)) & 0xFF
        store(levels, j * LANES, clamp(level, 0, TOP))
    return largest / np.float32(TOP)


@njit(forceinline=True)
def weighted_scaled(values: Pointer, importance: Pointer, levels: Pointer) -> Floats:
    """Levels and unit of the least weighted squared error that a search finds (make_qp_quants); returns the unit.

    values, importance (8, LANES) float32; levels (8, LANES) receives int32, which a negative value can bring beyond 63.
    """
    largest = floats(0.0)
    for j in range(SUB_BLOCKS):
        value = load(values, j * LANES)
        largest = select(largest > value, largest, value)
    empty = largest < NEGLIGIBLE

    best_rate = floats(np.float32(TOP)) / largest
    # llama.cpp stores these levels in 8 bits without a limit.
    least = _error(values, importance, best_rate, 0xFF)
    for step in range(-4, 5):
        if step == 0:
            continue
        rate = floats(np.float32(0.1) * np.float32(step) + np.float32(TOP)) / largest
        error = _error(values, importance, rate, TOP)
        better = error < least
        best_rate = select(better, rate, best_rate)
        least = select(better, error, least)

    sum_wxl, sum_wll = floats(0.0), floats(0.0)
    for j in range(SUB_BLOCKS):
        x = load(values, j * LANES)
        w = load(importance, j * LANES)
        level = nearest(best_rate * x)
        level = select(level < TOP, level, TOP)
        store(levels, j * LANES, level & 0xFF)
        sum_wxl += w * x * to_floats(level)
        sum_wll += w * to_floats(level) * to_floats(level)

    for _attempt in range(_ATTEMPTS):
        for j in range(SUB_BLOCKS):
            x = load(values, j * LANES)
            w = load(importance, j * LANES)
            level = bits(load(levels, j * LANES))
            rest_wxl = sum_wxl - w * x * to_floats(level)
            rest_wll = sum_wll - w * to_floats(level) * to_floats(level)
            new = nearest(x * rest_wll / rest_wxl)
            new = select(new < TOP, new, TOP)
            new_wxl = rest_wxl + w * x * to_floats(new)
            new_wll = rest_wll + w * to_floats(new) * to_floats(new)
            better = (rest_wxl > 0.0) & (rest_wll > 0.0) & (new != level)
            better = better & (new_wxl * new_wxl * sum_wll > sum_wxl * sum_wxl * new_wll)
            store(levels, j * LANES, select(better, new & 0xFF, level))
            sum_wxl = select(better, new_wxl, sum_wxl)
            sum_wll = select(better, new_wll, sum_wll)
    for j in range(SUB_BLOCKS):
        store(levels, j * LANES, select(empty, 0, bits(load(levels, j * LANES))))
    unit = select(sum_wll > 0.0, sum_wxl / sum_wll, 0.0)
    return select(empty, 0.0, unit)


@njit(forceinline=True)
def _error(values: Pointer, importance: Pointer, rate: Floats, top: int) -> Floats:
    """Weighted squared error of the levels nearest to rate · value."""
    unit = np.float32(1) / rate
    total = floats(0.0)
    for j in range(SUB_BLOCKS):
        x = load(values, j * LANES)
        level = nearest(rate * x)
        level = level & 0xFF if top == 0xFF else select(level < top, level, top)
        error = x - unit * to_floats(level)
        total += load(importance, j * LANES) * error * error
    return total
