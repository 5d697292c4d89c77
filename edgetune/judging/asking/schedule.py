"""Many requests to one judge: concurrent, each different request once, and none that the cache answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing

from edgetune import events
from edgetune.errors import EdgetuneError, Interrupted
from edgetune.judging.asking.cache import AnswerCache, find_reply, is_readable, keep_reply, request_keys
from edgetune.judging.asking.cost import Budget, CapReached, require_price
from edgetune.judging.asking.crew import work_through
from edgetune.judging.asking.event_loop import EventLoop
from edgetune.judging.asking.request import NOT_ASKED, Failed, JudgeRequest, Reply
from edgetune.judging.suites.judge_file import EndpointJudge, Judge, LocalJudge


def ask_all(
    requests: Sequence[JudgeRequest],
    judge: Judge,
    *,
    cache: AnswerCache | None,
    budget: Budget | None = None,
    threads: int | None = None,
    on_note: Callable[[str], None] = events.note,
    enough: Callable[[JudgeRequest, Reply | Failed, int], bool] | None = None,
) -> list[Reply | Failed]:
    """A judge's answers in the order of the requests, with progress on stderr.

    An endpoint is asked over as many connections as the judge says; a judge on this machine is asked one by one, with
    `threads` threads. Each reply is in the cache as soon as it is there; failed and unreadable ones are not kept, so
    that they are asked again next time. Of equal requests one is asked, and the others count as cached. `on_note` is
    called once for each thing that the judge does not support. `enough` is called with each new answer and the number
    of questions that it answers; when it returns True, no more are asked, and the others fail without being asked.

    Raises UsageError (no key, or a cap and no price), EdgetuneError (no request can succeed, or the budget's cap is
    reached: what is done is in the cache), Interrupted.
    """
    budget = Budget() if budget is None else budget
    if budget.max_usd is not None:
        require_price(judge)
    asking = _Asking(requests, judge, cache, budget, enough)
    if asking.open:
        with events.progress(f"asking {judge.name}", total=len(asking.open), unit="verdicts") as progress:
            asking.progress = progress
            try:
                if isinstance(judge, LocalJudge):
                    asking.ask_here(judge, threads)
                else:
                    with EventLoop() as loop:
                        loop.run(asking.ask_endpoint(judge, on_note))
            except KeyboardInterrupt:
                raise Interrupted(f"stopped after {asking.describe()}", remedy=asking.way_on()) from None
    if asking.capped:
        raise EdgetuneError(
            f"--max-cost {budget.max_usd:g} is reached after {asking.describe()}",
            where=judge.name,
            remedy=asking.way_on(" with a higher --max-cost"),
        )
    return asking.replies()


class _Asking:
    """The state of one `ask_all`: which keys are answered, and which are `open`."""

    def __init__(
        self,
        requests: Sequence[JudgeRequest],
        judge: Judge,
        cache: AnswerCache | None,
        budget: Budget,
        enough: Callable[[JudgeRequest, Reply | Failed, int], bool] | None,
    ) -> None:
        self._keys = request_keys(judge, requests)
        self._times, self._enough, self._stopped = Counter(self._keys), enough, False
        self._cache, self._budget, self._priced = cache, budget, judge.price is not None
        self._answers: dict[str, Reply | Failed] = {}
        self.open: dict[str, JudgeRequest] = {}
        self.capped = False
        self.progress: events.ProgressHandle | None = None
        for key, request in zip(self._keys, requests, strict=True):
            if key in self._answers or key in self.open:
                continue
            known = find_reply(cache, key, request.form)
            if known is None:
                self.open[key] = request
            else:
                self._answers[key] = known
        self._found = len(self._answers)
        self._failed = 0

    async def ask_endpoint(self, judge: EndpointJudge, on_note: Callable[[str], None]) -> None:
        from edgetune.judging.asking.endpoint import EndpointClient

        async with EndpointClient(judge, self._budget, on_note) as client:

            async def ask(question: tuple[str, JudgeRequest]) -> None:
                if self.capped or self._stopped:
                    return
                try:
                    self._take(question[0], await client.ask(question[1]))
                except CapReached:
                    self.capped = True

            async with aclosing(work_through(list(self.open.items()), ask, judge.connections)) as answered:
                async for _ in answered:
                    pass

    def ask_here(self, judge: LocalJudge, threads: int | None) -> None:
        from edgetune.judging.asking.local import LocalClient

        with LocalClient(judge, threads=threads) as client:
            for key, request in self.open.items():
                if self._stopped:
                    break
                self._take(key, client.ask(request))

    def replies(self) -> list[Reply | Failed]:
        """The answers in the order of the requests; of equal requests only the first has a cost."""
        seen: set[str] = set()
        replies = []
        for key in self._keys:
            answer = self._answers.get(key) or Failed(NOT_ASKED, asked=False)
            if key in seen and isinstance(answer, Reply):
                answer = Reply(answer.text, answer.probabilities, cached=True)
            seen.add(key)
            replies.append(answer)
        return replies

    def describe(self) -> str:
        """The number of verdicts so far, and the money spent."""
        there, wanted = len(self._answers) - self._failed, self._found + len(self.open)
        spent = f", ${self._budget.spent_usd:.4f} spent" if self._priced else ""
        return f"{there} of {wanted} verdicts{spent}"

    def way_on(self, how: str = "") -> str:
        """What the user can do next."""
        if self._cache is not None and self._cache.keeps:
            return f"they are saved: the same command{how} continues from there"
        return f"they are lost because there is no cache: run the same command{how}"

    def _take(self, key: str, answer: Reply | Failed) -> None:
        self._answers[key] = answer
        if isinstance(answer, Failed) or not is_readable(answer.text, self.open[key].form):
            self._failed += 1
        elif self._cache is not None:
            keep_reply(self._cache, key, answer)
        if self._enough is not None and self._enough(self.open[key], answer, self._times[key]):
            self._stopped = True
        if self.progress is not None:
            self.progress.advance(text=self._text())

    def _text(self) -> str:
        parts = [f"${self._budget.spent_usd:.4f} so far"] if self._priced and self._budget.spent_usd else []
        parts += [f"{self._found} more from the cache"] if self._found else []
        parts += [f"{self._failed} failed"] if self._failed else []
        return ", ".join(parts)
