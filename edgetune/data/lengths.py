"""How long texts are, and the length that a share of them fits into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from edgetune.errors import DataError
from edgetune.recipe.data import Length, Percentile


def resolve_length(limit: Length, lengths: Sequence[int]) -> int:
    """A limit as a number: its own, or the smallest length that its share of `lengths` fits into.

    Raises DataError for a share of nothing.
    """
    if not isinstance(limit, Percentile):
        return limit
    if not lengths:
        raise DataError(f"there are no examples to take the length of {limit.percentile:g} % of them from")
    return fitting_length(lengths, limit.percentile)


def fitting_length(lengths: Sequence[int], percentile: float) -> int:
    """The smallest of the lengths that at least this share of them, in percent, fits into."""
    share = Fraction(str(percentile)) / 100  # exact: in floats, 64.4 % of 250 examples are more than 161
    return sorted(lengths)[math.ceil(len(lengths) * share) - 1]
