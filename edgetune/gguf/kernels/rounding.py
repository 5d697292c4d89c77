"""Rounding in every lane, bit-identical to llama.cpp's reference: to integers, and to float16 and back."""

from __future__ import annotations

import numpy as np
from numba import njit

from edgetune.gguf.kernels.lanes import Floats, Ints, bits, from_bits, magnitude, select, to_floats

_MAGIC = np.float32(3 << 22)
"""Between 2^23 and 2^24 the distance of floats is 1, so after this addition the lowest bits are the nearest integer,
halves to even (nearest_int in ggml-quants.c). Values that are too large give the same wrong bits here as there."""
_MANTISSA = 0x7FFFFF
_ZERO = 0x400000
_EXPONENT = 0x4B000000
"""Of floats from 2^23 to 2^24."""


@njit(forceinline=True)
def clamp(values: Ints, low: int, high: int) -> Ints:
    """`values` within low and high."""
    values = select(values < high, values, high)
    return select(values > low, values, low)


@njit(forceinline=True)
def nearest(values: Floats) -> Ints:
    """The nearest integers."""
    return (bits(values + _MAGIC) & _MANTISSA) - _ZERO


@njit(forceinline=True)
def nearest_within(values: Floats, low: int, high: int) -> Ints:
    """The nearest integers within low and high."""
    return clamp(bits(values + _MAGIC) & _MANTISSA, low + _ZERO, high + _ZERO) - _ZERO


@njit(forceinline=True)
def nearest_floats_within(values: Floats, low: int, high: int) -> Floats:
    """The nearest integers within low and high as floats, faster than by a conversion from integers."""
    return from_bits(clamp(bits(values + _MAGIC) & _MANTISSA, low + _ZERO, high + _ZERO) | _EXPONENT) - _MAGIC


_HALF_INFINITY = 0x7C00
_SMALLEST_NORMAL = np.float32(2.0**-14)
_OVERFLOW = np.float32(65520.0)
"""Halfway from float16's largest number to the next one, which does not exist."""


@njit(forceinline=True)
def half_bits(values: Floats) -> Ints:
    """The bits of the nearest float16, halves to even."""
    size = magnitude(values)
    wide = bits(size)
    # Rebias the exponent and round off 13 bits; a carry into the exponent is correct.
    normal = (wide - ((127 - 15) << 23) + 0xFFF + ((wide >> 13) & 1)) >> 13
    # Floats from 0.5 to 1 are 2^-24 apart, as small float16 numbers are.
    small = bits(size + np.float32(0.5)) & 0xFFF
    half = select(size < _SMALLEST_NORMAL, small, normal)
    half = select(size < _OVERFLOW, half, _HALF_INFINITY)
    half = select(wide > 0x7F800000, 0x7E00, half)
    return half | ((bits(values) >> 16) & 0x8000)


@njit(forceinline=True)
def half_values(half: Ints) -> Floats:
    """The float32 that equal float16 numbers."""
    wide = (half & 0x7FFF) << 13
    finite = from_bits(wide) * np.float32(2.0**112)
    size = select((half & _HALF_INFINITY) == _HALF_INFINITY, from_bits(wide | 0x7F800000), finite)
    return from_bits(bits(size) | ((half & 0x8000) << 16))


@njit(forceinline=True)
def signed_byte(values: Ints) -> Floats:
    """The lowest 8 bits as numbers from -128 to 127."""
    return to_floats((values << 24) >> 24)
