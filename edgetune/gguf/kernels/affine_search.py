"""Scale and minimum of blocks whose weights are stored as scale · level + minimum, 0 ≤ level ≤ top.

The search of llama.cpp (make_qkx2_quants and make_qkx3_quants in ggml-quants.c): round at a few candidate rates, fit
scale and minimum to the rounded levels by weighted least squares, keep the best. A candidate is measured from the
minimum of the best one so far, so their order matters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from edgetune.gguf.kernels.lanes import Floats, Pointer, floats, select
from edgetune.gguf.kernels.layout import BLOCK, LANES
from edgetune.gguf.kernels.memory import load, store
from edgetune.gguf.kernels.rounding import nearest_floats_within


class AffineFit(NamedTuple):
    """The result in every lane; its levels are those nearest to rate · (weight - base)."""

    scale: Floats
    minimum: Floats
    rate: Floats
    base: Floats


@njit(forceinline=True)
def search_affine(
    block: Pointer, importance: Pointer, levels: Pointer, top: int, first: float, step: float, candidates: int
) -> AffineFit:
    """The best fit for LANES blocks; candidate i has the rate (first + step · i + top) / (largest - smallest weight).

    block, importance (32, LANES) float32; levels (32, LANES) float32 is overwritten.
    """
    x = load(block, 0)
    w = load(importance, 0)
    low, high = x, x
    sum_w = w
    sum_wx = w * x
    for i in range(1, BLOCK):
        x = load(block, i * LANES)
        w = load(importance, i * LANES)
        low = select(x < low, x, low)
        high = select(x > high, x, high)
        sum_w += w
        sum_wx += w * x
    low = select(low > 0.0, 0.0, low)
    flat = high == low

    rate = np.float32(top) / (high - low)
    scale = np.float32(1) / rate
    least = floats(0.0)
    for i in range(BLOCK):
        x = load(block, i * LANES)
        error = scale * nearest_floats_within(rate * (x - low), 0, top) + low - x
        least += load(importance, i * LANES) * (error * error)
    # A lane with equal weights has no rate: all its levels are 0, and no candidate is better.
    least = select(flat, -1.0, least)
    best = AffineFit(select(flat, 0.0, scale), low, select(flat, 0.0, rate), low)

    for candidate in range(candidates):
        rate = (np.float32(first) + np.float32(step) * np.float32(candidate) + np.float32(top)) / (high - best.minimum)
        sum_wl, sum_wll, sum_wlx = floats(0.0), floats(0.0), floats(0.0)
        for i in range(BLOCK):
            x = load(block, i * LANES)
            level = nearest_floats_within(rate * (x - best.minimum), 0, top)
            store(levels, i * LANES, level)
            wl = load(importance, i * LANES) * level
            sum_wl += wl
            sum_wll += wl * level
            sum_wlx += wl * x
        determinant = sum_w * sum_wll - sum_wl * sum_wl
        scale = (sum_w * sum_wlx - sum_wx * sum_wl) / determinant
        minimum = (sum_wll * sum_wx - sum_wl * sum_wlx) / determinant
        positive = minimum > 0.0
        scale = select(positive, sum_wlx / sum_wll, scale)
        minimum = select(positive, 0.0, minimum)
        total = floats(0.0)
        for i in range(BLOCK):
            error = scale * load(levels, i * LANES) + minimum - load(block, i * LANES)
            total += load(importance, i * LANES) * (error * error)
        better = (determinant > 0.0) & (total < least)
        least = select(better, total, least)
        best = AffineFit(
            select(better, scale, best.scale),
            select(better, minimum, best.minimum),
            select(better, rate, best.rate),
            select(better, best.minimum, best.base),
        )
    return best
