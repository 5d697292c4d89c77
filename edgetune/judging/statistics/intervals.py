"""Confidence intervals as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    lower: float
    upper: float
    confidence: float


def hull(first: Interval, second: Interval) -> Interval:
    """The smallest interval that holds both, which have one confidence."""
    return Interval(min(first.lower, second.lower), max(first.upper, second.upper), first.confidence)
