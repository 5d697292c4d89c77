"""What an endpoint understands: found out with the first request, and the same for all that follow.

OpenAI-compatible endpoints differ in how the form of an answer is asked for, in whether they tell token probabilities,
in the name of the token limit, and in whether they take a temperature. The strictest way is tried first; when a request
is refused, weaker ways are tried until one is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgetune.judging.asking.chat import ChatEndpoint, Refused, Unanswered
from edgetune.judging.asking.completion import Completion

Form = Literal["json_schema", "json_object with schema", "json_object", "text"]
Feature = Literal["form", "alternatives", "limit", "sampling"]


@dataclass(frozen=True)
class Dialect:
    """One way to ask.

    `alternatives` is how many tokens are listed at each place, 0 for none. `sampling` is what is said about it: all
    that the caller wants, the temperature alone, or nothing, so that the endpoint's own settings count.
    """

    form: Form = "json_schema"
    alternatives: int = 20
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    sampling: Literal["all", "temperature", "own"] = "temperature"


_LADDERS: dict[Feature, tuple[Any, ...]] = {
    "form": ("json_schema", "json_object with schema", "json_object", "text"),
    "alternatives": (20, 5, 0),
    "limit": ("max_tokens", "max_completion_tokens"),
    "sampling": ("all", "temperature", "own"),
}
_WORDS: dict[Feature, tuple[str, ...]] = {
    "alternatives": ("logprobs",),
    "form": ("response_format", "json_schema", "json_object", "structured output"),
    "limit": ("max_tokens", "max_completion_tokens"),
    "sampling": ("temperature", "top_p", "seed"),
}
"""How an error names each feature."""

_ABOUT_THE_PROMPT = (
    *("context_length", "context length", "context window", "maximum context", "prompt is too long", "too many tokens"),
    *("content_filter", "content_policy", "json_validate_failed"),
)
"""Words of errors that other prompts would not meet."""

MOST_REFUSALS = 5
"""So many requests may be refused in every way, with none taken before, until the endpoint is given up."""


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
        self._refusals = 0

    async def complete(self, build: Callable[[Dialect], dict[str, Any]], max_tokens: int) -> Completion:
        """The completion of the request that `build` makes in a dialect. Raises as ChatEndpoint does, but no Refused.

        Until a request is taken they go one by one, so that only one pays for finding the dialect out; but not when
        the endpoint is busy or fails, which tells nothing about it.
        """
        if self._settled or not self._in_line:
            dialect, settled = self._dialect, self._settled
            try:
                completion = await self._chat.complete(build(dialect), max_tokens)
            except Refused as refusal:
                if settled:
                    raise Unanswered(str(refusal)) from None
            else:
                self._settle(dialect, completion)
                return completion
        async with self._line:
            if not self._settled:
                return await self._find_out(build, max_tokens)
        return await self.complete(build, max_tokens)

    async def _find_out(self, build: Callable[[Dialect], dict[str, Any]], max_tokens: int) -> Completion:
        tried: set[Dialect] = set()
        dialect: Dialect | None = self._dialect
        first: Refused | None = None
        while dialect is not None:
            tried.add(dialect)
            try:
                completion = await self._chat.complete(build(dialect), max_tokens)
            except Refused as refusal:
                first = first or refusal
                dialect = self._next(dialect, refusal, tried)
            except Unanswered:
                self._in_line = False
                raise
            else:
                self._settle(dialect, completion)
                return completion
        self._refusals += 1
        if self._refusals >= MOST_REFUSALS:
            raise self._chat.hopeless(
                f"the endpoint refuses every request, however it is asked ({first})",
                "ask it something with another program, to see what it needs",
            )
        raise Unanswered(str(first))

    def _settle(self, dialect: Dialect, completion: Completion) -> None:
        if not self._settled:
            self._settled, self._dialect = True, dialect
            self._on_settled(dialect, completion)

    def _next(self, dialect: Dialect, refusal: Refused, tried: set[Dialect]) -> Dialect | None:
        """What to try after a refusal: what it names made weaker, else this and that."""
        said = f"{refusal.parameter} {refusal.code} {refusal}".casefold()
        if any(words in said for words in _ABOUT_THE_PROMPT):
            return None
        named = [feature for feature, words in _WORDS.items() if any(word in said for word in words)]
        if named == ["form"] and "form" not in self._features and dialect.form != "text":
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
