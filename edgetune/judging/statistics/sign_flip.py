"""The sign-flip test: were candidate and baseline alike, each difference could as well have the other sign.

Under the null hypothesis every item's difference (with clusters: the sum of every cluster's) is symmetric about zero,
so all 2^n ways of giving signs to the sizes that were seen are equally likely. The p-value is the share of them whose
sum is at least as far from zero as the observed one, and the test holds its level exactly, however few the items are,
however skewed or tied their sizes.

Source: Fisher (1935), The Design of Experiments, section 21; Good (2005), Permutation, Parametric and Bootstrap Tests
of Hypotheses, section 3.1.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

DRAWS = 99_999
"""Of signs, where they cannot be enumerated: the p-value 0.05 then has a standard error of 0.0007."""

_ENUMERATED_ITEMS = 40
"""By meeting in the middle: two lists of 2^20 sums each."""

_GRID_WORK = 1e8
"""Additions of the exact distribution on a grid: half a second at most."""

_DRAWN_ITEMS = 5_000
"""More are too many to draw 99,999 times (a second), and enough for an approximation that errs less than draws do."""

_DRAWN_AT_ONCE = 1_000_000
"""Signs, so that a chunk of them takes 8 MB."""

_FINEST_GRID = 1000
_TIE = 1e-9
"""Sums closer than this share of the largest possible one count as equal: they differ by rounding alone."""


def sign_flip_p(differences: NDArray[np.float64], *, mid: bool = False, seed: int = 0) -> float:
    """Two-sided p-value of the sign-flip test of differences, (n,), or of the sums of clusters of them, (g,).

    Exact where the differences lie on a grid (grades, means of a few grades, numbers with up to three decimals;
    hundreds of items) and for up to 40 nonzero differences of any kind. Otherwise 99,999 seeded draws of signs, with
    the observed one counted among them: (b + 1) / (m + 1), which also holds the level (Phipson, Smyth, 2010,
    Statistical Applications in Genetics and Molecular Biology 9:39); of more than 5,000 differences the saddlepoint
    approximation of the same distribution. Zeros say nothing about a direction; with nothing else, p is 1.

    `mid` counts what is exactly as extreme as the observed sum by half (Lancaster, 1961, Journal of the American
    Statistical Association 56:223-234): for differences of -1, 0 and 1 this is McNemar's mid-p value. It is for coarse
    outcomes, where the plain p-value stays far below its level; its level holds on average and not at every point.
    """
    sizes = np.abs(differences[differences != 0])
    if sizes.size == 0:
        return 1.0
    observed = abs(float(differences.sum()))
    grid = _find_grid(sizes)
    if grid is not None and sizes.size * grid.sum() <= _GRID_WORK:
        beyond, equal = _shares_on_grid(grid, round(observed * float(grid.sum()) / float(sizes.sum())))
    elif sizes.size <= _ENUMERATED_ITEMS:
        beyond, equal = _shares_enumerated(sizes, observed)
    elif sizes.size <= _DRAWN_ITEMS:
        return _drawn_p(sizes, observed, seed)
    else:
        return _approximate_p(sizes, observed)
    return min(1.0, beyond + (equal / 2 if mid else equal))


def _find_grid(sizes: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """The sizes as whole multiples of a common step of 1, 1/2, 1/3, ... 1/1000; None where there is none."""
    steps = np.arange(1, _FINEST_GRID + 1)[:, None]
    few = sizes[:8] * steps
    for step in steps[(np.abs(few - np.round(few)) < _TIE * np.maximum(1, few)).all(axis=1), 0]:
        scaled = sizes * step
        whole = np.round(scaled)
        if (np.abs(scaled - whole) < _TIE * np.maximum(1, scaled)).all() and whole.min() > 0:
            multiples = whole.astype(np.int64)
            return multiples // np.gcd.reduce(multiples)
    return None


def _shares_on_grid(multiples: NDArray[np.int64], observed: int) -> tuple[float, float]:
    """The shares of sign vectors whose |sum| is beyond the observed one, and equal to it, from the whole distribution.

    Adding one difference after another, each with either sign, gives the distribution of the sum T of those with a
    plus; the signed sum is 2 T - total.
    """
    total = int(multiples.sum())
    chance = np.zeros(total + 1)
    chance[0], filled = 1.0, 0
    for size in np.sort(multiples):
        grown = chance[: filled + size + 1] / 2
        grown[size:] += chance[: filled + 1] / 2
        filled += size
        chance[: filled + 1] = grown
    distances = np.abs(2 * np.arange(total + 1) - total)
    return float(chance[distances > observed].sum()), float(chance[distances == observed].sum())


def _shares_enumerated(sizes: NDArray[np.float64], observed: float) -> tuple[float, float]:
    """The same by meeting in the middle: every sum is one of the first half's signs plus one of the second half's."""
    tie = _TIE * float(sizes.sum())
    half = sizes.size // 2
    first, second = np.sort(_all_sums(sizes[:half])), np.sort(_all_sums(sizes[half:]))

    def share_above(bound: float) -> float:
        """Of all sums, those above the positive bound or, as every sum has its negative, below -bound."""
        above = second.size - np.searchsorted(second, bound - first, side="right")
        return 2 * float(above.sum(dtype=np.float64)) / (first.size * second.size)

    beyond = share_above(observed + tie)
    return beyond, (share_above(observed - tie) if observed > tie else 1.0) - beyond


def _all_sums(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    return sums


def _drawn_p(sizes: NDArray[np.float64], observed: float, seed: int) -> float:
    generator = np.random.default_rng(seed)
    tie = _TIE * float(sizes.sum())
    total, extreme, left = float(sizes.sum()), 0, DRAWS
    while left:
        rows = min(left, max(1, _DRAWN_AT_ONCE // sizes.size))
        drawn = generator.integers(0, 256, (rows, -(-sizes.size // 8)), dtype=np.uint8)
        positive = np.unpackbits(drawn, axis=1, count=sizes.size)
        sums = 2 * (positive.astype(np.float64) @ sizes) - total
        extreme += int((np.abs(sums) >= observed - tie).sum())
        left -= rows
    return (extreme + 1) / (DRAWS + 1)


def _approximate_p(sizes: NDArray[np.float64], observed: float) -> float:
    """The share of sums beyond the observed one by the saddlepoint approximation (Robinson, 1982, Journal of the Royal
    Statistical Society B 44:91-101). The sum's cumulant generating function is the sum of log cosh(s size)."""
    spread, total = math.sqrt(float(sizes @ sizes)), float(sizes.sum())
    if observed <= 1e-3 * spread:
        return 1.0  # but for less than a thousandth
    if observed >= total * (1 - 1e-6):
        return sys.float_info.min

    def excess(tilt: float) -> float:
        return float(sizes @ np.tanh(tilt * sizes)) - observed

    most = observed / spread**2
    while excess(most) < 0:
        most *= 2
    tilt = brentq(excess, 0.0, most, rtol=1e-12)
    places = np.abs(tilt * sizes)
    generating = float((places + np.log1p(np.exp(-2 * places)) - math.log(2)).sum())
    root = math.sqrt(2 * (tilt * observed - generating))
    curvature = tilt * math.sqrt(float((sizes**2) @ (1 - np.tanh(places) ** 2)))
    return max(sys.float_info.min, min(1.0, 2 * float(ndtr(-root - math.log(curvature / root) / root))))
