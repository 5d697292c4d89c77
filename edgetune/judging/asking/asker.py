"""One judge as a function from requests to replies, which counts their costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgetune import events
from edgetune.judging.asking.cache import AnswerCache
from edgetune.judging.asking.cost import Budget, Costs
from edgetune.judging.asking.request import NOT_ASKED, Failed, JudgeRequest, Reply
from edgetune.judging.asking.schedule import ask_all
from edgetune.judging.asking.verdict import parse_verdict
from edgetune.judging.suites.judge_file import Judge


@dataclass
class Allowance:
    """Counts a judge's `unscored` verdicts, of which a share of `max_unscored` of all its `verdicts` is allowed."""

    verdicts: int
    max_unscored: float
    unscored: int = 0

    @property
    def is_spent(self) -> bool:
        """True once too many are unscored even if all further verdicts are scored."""
        return self.verdicts > 0 and self.unscored / self.verdicts > self.max_unscored


@dataclass
class Stop:
    """Shared by the judges of a panel: `judge` is the one whose allowance is spent, which makes the panel invalid."""

    judge: str | None = None


class Asker:
    """Asks a judge. `costs` and `notes` grow with the requests; several judges may share a budget.

    With an `allowance`, it stops once that is spent, and `stop` stops the other judges.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        cache: AnswerCache | None,
        budget: Budget,
        threads: int | None = None,
        allowance: Allowance | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.judge, self._cache, self._budget, self._threads = judge, cache, budget, threads
        self._allowance = allowance
        self._stop = Stop() if stop is None else stop
        self.costs = Costs(usd=None if judge.price is None else 0.0)
        self.notes: list[str] = []

    def __call__(self, requests: Sequence[JudgeRequest]) -> list[Reply | Failed]:
        """The replies in the order of the requests. Raises what `ask_all` raises."""
        if self._allowance is not None and self._allowance.is_spent:
            self._stop.judge = self._stop.judge or self.judge.name
        if self._stop.judge is not None:
            return [self._spared()] * len(requests)
        spent = self._budget.spent_usd
        replies = ask_all(
            requests,
            self.judge,
            cache=self._cache,
            budget=self._budget,
            threads=self._threads,
            on_note=self._note,
            enough=self._is_enough,
        )
        replies = [reply if not isinstance(reply, Failed) or reply.asked else self._spared() for reply in replies]
        self._count(replies, self._budget.spent_usd - spent)
        return replies

    def _is_enough(self, request: JudgeRequest, reply: Reply | Failed, verdicts: int) -> bool:
        """Count an answer, and return whether the judge is certain to be invalid."""
        if self._allowance is None:
            return False
        if isinstance(reply, Failed) or parse_verdict(reply.text, request.form).values is None:
            self._allowance.unscored += verdicts
        if self._allowance.is_spent:
            self._stop.judge = self.judge.name
        return self._allowance.is_spent

    def _spared(self) -> Failed:
        why = "too many of its verdicts are unscored"
        if self._stop.judge != self.judge.name:
            why = f"{self._stop.judge} is invalid already"
        return Failed(f"{NOT_ASKED}: {why}", asked=False)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            events.note(text)
            self.notes.append(text)

    def _count(self, replies: Sequence[Reply | Failed], spent_usd: float) -> None:
        costs = self.costs
        cached = sum(isinstance(reply, Reply) and reply.cached for reply in replies)
        spared = sum(isinstance(reply, Failed) and not reply.asked for reply in replies)
        new = [reply for reply in replies if isinstance(reply, Reply) and not reply.cached]
        self.costs = replace(
            costs,
            asked=costs.asked + len(replies) - cached - spared,
            cached=costs.cached + cached,
            input_tokens=costs.input_tokens + sum(reply.input_tokens for reply in new),
            output_tokens=costs.output_tokens + sum(reply.output_tokens for reply in new),
            usd=None if costs.usd is None else costs.usd + spent_usd,
            seconds=costs.seconds + sum(reply.seconds for reply in new),
        )
