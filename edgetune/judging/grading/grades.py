"""The verdicts of judges: grades of single answers, preferences between two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edgetune.judging.asking.request import Failed, JudgeRequest, Reply

Order = Literal["candidate first", "baseline first"]
Winner = Literal["candidate", "baseline", "tie"]

EQUAL_ANSWERS = "both answers are the same"
"""Why a judge was not asked about a pair although nothing is wrong with its answers."""

Ask = Callable[[Sequence[JudgeRequest]], Sequence[Reply | Failed]]
"""How one judge is asked: what it replied to each request, in their order."""


@dataclass(frozen=True)
class Grade:
    """One answer, graded once by one judge on all criteria of a rubric.

    `scores` are by criterion from 1 to 5: the expected grade where the judge gave probabilities (`expected`), the grade
    itself otherwise; None when the verdict is unscored, and `problem` then says why. A degenerate answer (`degenerate`
    says how) is graded 1 without asking.
    """

    item: str
    judge: str
    repeat: int
    scores: dict[str, float] | None
    reason: str = ""
    expected: bool = False
    problem: str | None = None
    degenerate: str | None = None


@dataclass(frozen=True)
class Preference:
    """Two answers to one item, compared once by one judge in one order; `winner` is None when it is unscored.

    `degenerate` tells that the judge was not asked, and why: an answer is degenerate, or both are the same.
    """

    item: str
    judge: str
    repeat: int
    order: Order
    winner: Winner | None
    reason: str = ""
    problem: str | None = None
    degenerate: str | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    """By winner, where the judge gave token probabilities."""
