"""What an endpoint understands: found out with the first request, and the same for all that follow.

OpenAI-compatible endpoints differ in how the form of an answer is asked for, in whether they tell token probabilities,
in the name of the token limit, and in whether they take a temperature. The strictest way is tried first; when a request
is refused, weaker ways are tried until one is taken. Only where none is left does a refusal mean what its status says:
a key without permission, or a model that is not there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgetune.errors import EdgetuneError
from edgetune.judging.asking.chat import ChatEndpoint, Unanswered
from edgetune.judging.asking.completion import Completion
from edgetune.judging.asking.refusal import ADVICE, Cause, Feature, Refused
from edgetune.judging.suites.forms import FORM_DIALECTS


@dataclass(frozen=True)
class Dialect:
    """One way to ask. `form` is one of FORM_DIALECTS.

    `alternatives` is how many tokens are listed at each place, 0 for none. `sampling` is what is said about it: all
    that the caller wants, the temperature alone, or nothing, so that the endpoint's own settings count.
    """

    form: str = "json_schema"
    alternatives: int = 20
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    sampling: Literal["all", "temperature", "own"] = "temperature"


_LADDERS: dict[Feature, tuple[Any, ...]] = {
    "form": tuple(FORM_DIALECTS.own),
    "alternatives": (20, 5, 0),
    "limit": ("max_tokens", "max_completion_tokens"),
    "sampling": ("all", "temperature", "own"),
}

MOST_REFUSALS = 5
"""So many requests may be refused in every way, with none taken before, until a plain prompt is tried."""

MOST_PROMPTS_REFUSED = 16
"""The same for prompts that are refused for what they are."""

_PLAIN_PROMPT = [{"role": "user", "content": "Hello"}]
"""A prompt that no filter stops and that fits every context: it tells bad prompts from an endpoint that takes none."""


class Dialogue:
    """Requests to one endpoint in the dialect that it understands.

    `start` is tried first, and `features` are those that may be weakened. `on_settled` hears the dialect that was
    taken, and the first completion, once.
    """

    def __init__(
        self,
        chat: ChatEndpoint,
        start: Dialect,
        features: Sequence[Feature],
        on_settled: Callable[[Dialect, Completion], None],
    ) -> None:
        self._chat, self._dialect, self._features, self._on_settled = chat, start, tuple(features), on_settled
        self._settled = False
        self._in_line = True
        self._line = asyncio.Lock()
        self._refusals: Counter[Cause | None] = Counter()
        self._unexplained_in_row = 0

    async def complete(self, build: Callable[[Dialect], dict[str, Any]], max_tokens: int) -> Completion:
        """The completion of the request that `build` makes in a dialect. Raises as ChatEndpoint does, but no Refused.

        Until a request is taken they go one by one, so that only one pays for finding the dialect out; but not when
        the endpoint is busy or fails, which tells nothing about it.
        """
        if self._settled or not self._in_line:
            dialect, settled = self._dialect, self._settled
            try:
                completion = await self._chat.complete(build(dialect), max_tokens, understood=settled)
            except Refused as refusal:
                if settled:
                    return await self._ask_otherwise(build, max_tokens, dialect, refusal)
            else:
                self._unexplained_in_row = 0
                self._settle(dialect, completion)
                return completion
        async with self._line:
            if not self._settled:
                return await self._find_out(build, max_tokens)
        return await self.complete(build, max_tokens)

    async def _ask_otherwise(
        self, build: Callable[[Dialect], dict[str, Any]], max_tokens: int, dialect: Dialect, refusal: Refused
    ) -> Completion:
        """A request that is refused where others were taken. Behind a gateway may be several servers, of which some do
        not take what the others take; so what the refusal names is left out, of this request alone."""
        if not refusal.named:
            self._unexplained_in_row += refusal.cause is None
            if self._unexplained_in_row >= MOST_PROMPTS_REFUSED:
                what = f"{self._unexplained_in_row} requests were refused one after the other, the last with: {refusal}"
                raise self._chat.hopeless(what, "see what has changed there, then run the same again")
            raise Unanswered(str(refusal), for_good=True)
        try:
            return (await self._ask_weaker(build, max_tokens, self._next(dialect, refusal, {dialect}), refusal))[1]
        except Refused as problem:
            raise problem.last or Unanswered(str(problem), for_good=True) from None

    async def _find_out(self, build: Callable[[Dialect], dict[str, Any]], max_tokens: int) -> Completion:
        try:
            dialect, completion = await self._ask_weaker(build, max_tokens, self._dialect)
        except Refused as refusal:
            await self._count(refusal, build, max_tokens)
            raise Unanswered(str(refusal), for_good=refusal.for_good) from None
        except Unanswered:
            self._in_line = False
            raise
        self._settle(dialect, completion)
        return completion

    async def _ask_weaker(
        self,
        build: Callable[[Dialect], dict[str, Any]],
        max_tokens: int,
        dialect: Dialect | None,
        refusal: Refused | None = None,
    ) -> tuple[Dialect, Completion]:
        """The first dialect that is taken, from this one on, and its completion.

        Raises the first Refused where none is taken; but the last where that tells of a key or an address.
        """
        tried: set[Dialect] = set()
        first = refusal
        while dialect is not None:
            tried.add(dialect)
            try:
                return dialect, await self._chat.complete(build(dialect), max_tokens)
            except Refused as problem:
                refusal = problem
                first = first or problem
                dialect = self._next(dialect, problem, tried)
        assert first is not None
        assert refusal is not None
        raise first if refusal.last is None else refusal

    async def _count(self, refusal: Refused, build: Callable[[Dialect], dict[str, Any]], max_tokens: int) -> None:
        """Raise EdgetuneError when an endpoint that took nothing before has refused enough to be given up.

        Before it is, a plain prompt is tried. If that is taken, the endpoint is settled: the others were bad prompts.
        """
        if refusal.last is not None:
            raise refusal.last
        self._refusals[refusal.cause] += 1
        refused = self._refusals[refusal.cause]
        if refused % (MOST_REFUSALS if refusal.cause is None else MOST_PROMPTS_REFUSED):
            return
        try:
            plain = await self._ask_weaker(
                lambda dialect: {**build(dialect), "messages": _PLAIN_PROMPT}, max_tokens, self._dialect
            )
        except Refused as problem:
            raise problem.last or self._explain(refusal, refused) from None
        self._settle(*plain)

    def _explain(self, refusal: Refused, refused: int) -> EdgetuneError:
        if refusal.cause is not None:
            what = f"the endpoint refuses the first {refused} prompts, and a plain one too ({refusal})"
            return self._chat.hopeless(what, ADVICE[refusal.cause])
        remedy = "ask it something with another program, to see what it needs"
        if refusal.named == ("limit",):
            remedy = "set another max_tokens: in the judge's file, or under generation in the suite"
        return self._chat.hopeless(f"the endpoint refuses every request, however it is asked ({refusal})", remedy)

    def _settle(self, dialect: Dialect, completion: Completion) -> None:
        if not self._settled:
            self._settled, self._dialect = True, dialect
            self._on_settled(dialect, completion)

    def _next(self, dialect: Dialect, refusal: Refused, tried: set[Dialect]) -> Dialect | None:
        """What to try after a refusal: what it names made weaker, else this and that."""
        if refusal.cause is not None and not (refusal.cause == "filter" and refusal.named):
            return None
        named = refusal.named
        if named == ("form",) and "form" not in self._features and dialect.form != "text" and not self._settled:
            raise self._chat.hopeless(
                f"the endpoint does not take structured: {dialect.form} ({refusal})",
                "write structured: auto into the judge's file, or leave it out",
            )
        others: Iterator[Dialect] = self._one_by_one()
        if named:
            others = (other for feature in named if feature in self._features for other in _weaken(dialect, feature))
        return next((other for other in others if other not in tried), None)

    def _one_by_one(self) -> Iterator[Dialect]:
        """Each feature weaker by itself, then more and more of them at their weakest."""
        for feature in self._features:
            yield from _weaken(self._dialect, feature)
        weakest = self._dialect
        for feature in self._features:
            weakest = [weakest, *_weaken(weakest, feature)][-1]
            yield weakest


def _weaken(dialect: Dialect, feature: Feature) -> Iterator[Dialect]:
    """The dialect with one feature weaker and weaker, to the end of its ladder."""
    ladder = _LADDERS[feature]
    for step in ladder[ladder.index(getattr(dialect, feature)) + 1 :]:
        yield replace(dialect, **{feature: step})
