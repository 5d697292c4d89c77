"""What a metric's values are: what one item contributes, how values are written, and between which ends they lie."""

from __future__ import annotations

from typing import Literal

ValueKind = Literal["accuracy", "score", "aggregate"]
"""accuracy: right or wrong by item. score: a number by item, whose mean counts. aggregate: a number over all items that
is no such mean, or whose items are far from normal (F1, perplexity)."""

Unit = Literal["share", "points", "grade", "log", "number"]
"""How values are written: share 0.02 is 2 points; points are already of 100 (ROUGE); grade is on the judge's scale; log
is the natural logarithm of what is shown (perplexity: a difference of 0.02 is 2 % more); number is as it is."""

SCALES: dict[Unit, tuple[float, float]] = {"share": (0.0, 1.0), "points": (0.0, 100.0), "grade": (1.0, 5.0)}
"""Both ends of the units that have ends. A difference of two values lies between minus and plus the distance of both;
preferences, whose baseline is 0, lie there too."""


def scale_length(unit: Unit) -> float | None:
    """How far apart two values of a unit can lie; None for a unit without ends."""
    return SCALES[unit][1] - SCALES[unit][0] if unit in SCALES else None
