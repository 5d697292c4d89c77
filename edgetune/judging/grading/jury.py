"""The judges of a suite, asked as one panel: verdicts, notes, and what all of it took."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Protocol, TypeVar

from edgetune.judging.asking.asker import Allowance, Asker, Stop
from edgetune.judging.asking.cache import AnswerCache
from edgetune.judging.asking.cost import Budget, Costs
from edgetune.judging.grading.grades import Ask, Grade
from edgetune.judging.grading.summaries import unscored_share
from edgetune.judging.suites.judge_file import Judge

Verdict_co = TypeVar("Verdict_co", covariant=True)


class Task(Protocol[Verdict_co]):
    """Something that judges are asked: a GradingTask or a ComparingTask."""

    def verdicts(self, judge_name: str, repeats: int, ask: Ask) -> tuple[Verdict_co, ...]: ...


class Jury:
    """Asks every judge, and stops once a judge is certain to be invalid.

    `verdicts` (by judge) counts those that are asked for. Grades of the baseline that are `known` already count among
    the judge's verdicts, of which a share of `max_unscored` may be unscored.
    """

    def __init__(
        self,
        judges: Sequence[Judge],
        verdicts: Sequence[int],
        known: Sequence[Grade],
        max_unscored: float,
        *,
        cache: AnswerCache | None,
        budget: Budget,
        threads: int | None = None,
    ) -> None:
        stop = Stop()
        self._askers = []
        for judge, ahead in zip(judges, verdicts, strict=True):
            unscored = unscored_share(grade for grade in known if grade.judge == judge.name)
            allowance = Allowance(ahead + unscored.of, max_unscored, unscored.count)
            asker = Asker(judge, cache=cache, budget=budget, threads=threads, allowance=allowance, stop=stop)
            self._askers.append(asker)

    def ask(self, task: Task[Verdict_co] | None) -> tuple[Verdict_co, ...]:
        """The verdicts of every judge; none without a task."""
        if task is None:
            return ()
        return tuple(
            verdict for asker in self._askers for verdict in task.verdicts(asker.judge.name, asker.judge.repeats, asker)
        )

    @property
    def costs(self) -> Costs:
        """The costs of all judges so far."""
        return functools.reduce(operator.add, (asker.costs for asker in self._askers))

    @property
    def notes(self) -> list[str]:
        """What the judges do not support, each noted once."""
        return list(dict.fromkeys(note for asker in self._askers for note in asker.notes))
