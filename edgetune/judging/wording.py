"""How numbers are written for people: the same in the terminal, in reports and in pictures."""

from __future__ import annotations

from edgetune.judging.statistics import Interval


def percent(share: float) -> str:
    """0.911 -> `91.1 %`."""
    return f"{share * 100:.1f} %"


def percent_range(interval: Interval) -> str:
    """An interval of an accuracy, in percent -> `83.4 to 95.4`."""
    return f"{interval.lower * 100:.1f} to {interval.upper * 100:.1f}"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign: -0.033 -> `−3.3`."""
    text = f"{abs(difference) * 100:.1f}"
    if text == "0.0":
        return text
    return f"−{text}" if difference < 0 else f"+{text}"


def points_range(interval: Interval) -> str:
    """An interval of a difference -> `−9.9 to +1.2`."""
    return f"{points(interval.lower)} to {points(interval.upper)}"


def point_count(share: float) -> str:
    """A size without a sign: 0.02 -> `2 points`, 0.01 -> `1 point`, 0.0837 -> `8.4 points`."""
    text = f"{share * 100:.1f}".removesuffix(".0")
    return f"{text} point" if text == "1" else f"{text} points"


def probability(p: float) -> str:
    """A p-value -> `p = 0.039`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def about(count: int) -> str:
    """A rough number, rounded up to two digits: 1234 -> `1,300`."""
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // step) * step:,}"


def megabytes(size_bytes: int) -> str:
    """91762336 -> `91.8 MB`."""
    return f"{size_bytes / 1e6:.1f} MB"
