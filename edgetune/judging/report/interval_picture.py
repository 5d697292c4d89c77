"""A comparison as a picture: where zero, the margin, the interval and the estimate lie, in percent of its width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.judging.gate.comparison import Comparison
from edgetune.judging.gate.wording import difference_text, range_text

_ROOM = 0.12
"""Of the width, left free on both sides."""


@dataclass(frozen=True)
class IntervalPicture:
    """Places from 0 (left) to 100 (right); the candidate is better to the right, whichever way the metric counts.

    `caption` is what a screen reader says. Labels sit beside what they name, so that none needs a colour.
    """

    zero: float
    margin: float
    lower: float
    upper: float
    estimate: float
    margin_label: str
    label: str
    caption: str

    @staticmethod
    def anchor(place: float, reach: float) -> str:
        """How a label that reaches so far to each side hangs on its place (SVG's text-anchor), to stay inside."""
        return "start" if place < reach else "end" if place > 100 - reach else "middle"


def draw_intervals(comparisons: Sequence[Comparison]) -> list[IntervalPicture]:
    """One picture each. Comparisons in one unit share a scale, so that they can be compared by eye."""
    pictures = []
    for comparison in comparisons:
        alike = [other for other in comparisons if other.unit == comparison.unit]
        ends = [0.0, *(end for one in alike for end in (*_turned_interval(one), -one.margin))]
        low, high = min(ends), max(ends)
        span = (high - low) or 1.0
        pictures.append(_draw(comparison, low - _ROOM * span, span * (1 + 2 * _ROOM)))
    return pictures


def _draw(comparison: Comparison, left: float, width: float) -> IntervalPicture:
    def place(value: float) -> float:
        return round(100 * (value - left) / width, 2)

    lower, upper = _turned_interval(comparison)
    loss = comparison.margin if comparison.higher_is_better is False else -comparison.margin
    margin_label = "margin " + difference_text(loss, comparison.unit)
    difference, unit = difference_text(comparison.difference, comparison.unit), comparison.unit
    label = f"{difference} ({range_text(comparison.interval, unit)})"
    return IntervalPicture(
        zero=place(0),
        margin=place(-comparison.margin),
        lower=place(lower),
        upper=place(upper),
        estimate=place(_turn(comparison) * comparison.difference),
        margin_label=margin_label,
        label=label,
        caption=f"{comparison.title}: difference {label}; {margin_label}",
    )


def _turned_interval(comparison: Comparison) -> tuple[float, float]:
    ends = (_turn(comparison) * comparison.interval.lower, _turn(comparison) * comparison.interval.upper)
    return min(ends), max(ends)


def _turn(comparison: Comparison) -> int:
    return 1 if comparison.higher_is_better else -1
