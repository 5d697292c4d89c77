"""Lengths that a share of the examples fits into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from edgetune.errors import DataError
from edgetune.recipe.data import Length, Percentile


def resolve_length(limit: Length, lengths: Sequence[int]) -> int:
    """A limit as a number; a percentile is the smallest length that this share of `lengths` fits into.

    Raises DataError for a percentile without lengths.
    """
    if not isinstance(limit, Percentile):
        return limit
    if not lengths:
        raise DataError(f"there are no examples, so percentile {limit.percentile:g} has no length")
    return fitting_length(lengths, limit.percentile)


def fitting_length(lengths: Sequence[int], percentile: float) -> int:
    """The smallest length that at least this share of `lengths`, in percent, fits into."""
    share = Fraction(str(percentile)) / 100  # exact: in floats, 64.4 % of 250 examples are more than 161
    return sorted(lengths)[math.ceil(len(lengths) * share) - 1]
