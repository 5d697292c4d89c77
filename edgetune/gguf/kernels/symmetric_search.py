"""Scale of blocks whose weights are stored as scale · level, -top ≤ level < top.

The search of llama.cpp (make_qx_quants in ggml-quants.c, rmse_type 1): round at a few candidate rates around the one
that takes the weight of the largest magnitude to -top, fit the scale to the levels by weighted least squares, keep the
best.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from edgetune.gguf.kernels.lanes import Floats, Mask, Pointer, floats, magnitude, select
from edgetune.gguf.kernels.layout import LANES
from edgetune.gguf.kernels.memory import load
from edgetune.gguf.kernels.rounding import nearest_floats_within

NEGLIGIBLE = np.float32(1e-15)
"""A block without a weight of at least this magnitude counts as zero (GROUP_MAX_EPS)."""


class SymmetricFit(NamedTuple):
    """The result in every lane; its levels are those nearest to rate · weight, or all -top where `empty`."""

    scale: Floats
    rate: Floats
    empty: Mask


@njit(forceinline=True)
def search_symmetric(block: Pointer, importance: Pointer, length: int, top: int) -> SymmetricFit:
    """The best fit for LANES blocks of `length` weights; block, importance (length, LANES) float32."""
    extreme = floats(0.0)
    for i in range(length):
        x = load(block, i * LANES)
        extreme = select(magnitude(x) > magnitude(extreme), x, extreme)
    empty = magnitude(extreme) < NEGLIGIBLE

    best_rate = floats(-np.float32(top)) / extreme
    sum_wxl, sum_wll = _fit(block, importance, best_rate, length, top)
    best_scale = select(sum_wll == 0.0, 0.0, sum_wxl / sum_wll)
    best = best_scale * sum_wxl
    for step in range(-9, 10):
        if step == 0:
            continue
        rate = floats(-(np.float32(top) + np.float32(0.1) * np.float32(step))) / extreme
        sum_wxl, sum_wll = _fit(block, importance, rate, length, top)
        better = (sum_wll > 0.0) & (sum_wxl * sum_wxl > best * sum_wll)
        scale = sum_wxl / sum_wll
        best_rate = select(better, rate, best_rate)
        best_scale = select(better, scale, best_scale)
        best = select(better, scale * sum_wxl, best)
    return SymmetricFit(select(empty, 0.0, best_scale), best_rate, empty)


@njit(forceinline=True)
def _fit(block: Pointer, importance: Pointer, rate: Floats, length: int, top: int) -> tuple[Floats, Floats]:
    """Sums of the least squares: importance · weight · level and importance · level²."""
    sum_wxl, sum_wll = floats(0.0), floats(0.0)
    for i in range(length):
        x = load(block, i * LANES)
        w = load(importance, i * LANES)
        level = nearest_floats_within(rate * x, -top, top - 1)
        sum_wxl += w * x * level
        sum_wll += w * level * level
    return sum_wxl, sum_wll
