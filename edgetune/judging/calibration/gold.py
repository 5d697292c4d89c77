"""People's votes on answers, against which a judge is measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from edgetune.judging.suites.items import Item

GoldKind = Literal["pairs", "grades"]
"""pairs: which of two answers people prefer. grades: what grade, from 1 to 5, they give to one."""


@dataclass(frozen=True)
class GoldItem:
    """A question with two answers (pairs) or one (grades), and the vote of each person who was asked.

    Votes on pairs are 1 (the first answer is better), -1 (the second) or 0 (neither); on single answers they are grades
    from 1 to 5.
    """

    item: Item
    answers: tuple[str, ...]
    votes: tuple[float, ...]

    @property
    def gold(self) -> float | None:
        """The vote of more than half of the people (pairs), or None; their mean grade (grades)."""
        if len(self.answers) == 1:
            return sum(self.votes) / len(self.votes)
        vote, count = Counter(self.votes).most_common(1)[0]
        return vote if 2 * count > len(self.votes) else None


@dataclass(frozen=True)
class GoldSet:
    """One file of people's votes. `left_out` items have no majority, and a judge can neither agree nor disagree."""

    name: str
    format: str
    sha256: str
    items: tuple[GoldItem, ...]
    left_out: int

    @property
    def kind(self) -> GoldKind:
        """What was voted on."""
        return "pairs" if len(self.items[0].answers) == 2 else "grades"
