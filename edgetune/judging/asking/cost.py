"""What judging costs: an estimate before the first call, and a cap that holds while calls are under way."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.errors import UsageError
from edgetune.judging.suites.judge_file import EndpointJudge, Judge, Price

if TYPE_CHECKING:
    from edgetune.judging.asking.cache import AnswerCache
    from edgetune.judging.asking.request import JudgeRequest

TOKENS_AROUND_A_MESSAGE = 4
SHORTEST_VERDICT_TOKENS = 20
"""A verdict with hardly any reason; the low end of an estimate."""


class CapReached(Exception):
    """The next call could cost more than is left, and no call is under way whose end could change that."""


class Budget:
    """What may be spent in US dollars, over all calls of a command; None is no limit.

    Before a call its worst case is reserved, afterwards what it took is settled, so that the cap holds however many are
    under way. `spent_usd` counts a call that ended without an answer (a timeout, a broken connection) as its worst
    case, for the endpoint may bill it.
    """

    def __init__(self, max_usd: float | None = None) -> None:
        if max_usd is not None and not 0 <= max_usd < math.inf:
            raise UsageError(f"--max-cost is {max_usd}; it must be 0 or more US dollars")
        self.max_usd = max_usd
        self.spent_usd = 0.0
        self._reserved: list[float] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def reserve(self, usd: float) -> None:
        """Set aside a call's worst case; waits while calls under way may free enough. Raises CapReached."""
        while self.max_usd is not None and self.spent_usd + math.fsum(self._reserved) + usd > self.max_usd:
            if not self._reserved:
                raise CapReached
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self._reserved.append(usd)

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Replace a reservation by what the call took."""
        self._reserved.remove(reserved_usd)
        self.spent_usd += spent_usd
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


@dataclass(frozen=True)
class Costs:
    """What the judges took: verdicts asked for, taken from the cache, and what was paid (None: no price is known)."""

    asked: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0

    def __add__(self, other: Costs) -> Costs:
        """What both took; without a price of one there is none of both."""
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Costs(
            self.asked + other.asked,
            self.cached + other.cached,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            usd,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class CostEstimate:
    """What asking would take. Tokens are about characters / 4; `output_tokens` is at most so many.

    `calls` are those that would be made: not the `cached` ones, nor `repeated` ones that equal another of the list.
    `low_usd` and `high_usd` are None where no price is known; retries of failed calls are not in them.
    """

    judge: str
    calls: int
    cached: int
    repeated: int
    input_tokens: int
    output_tokens: int
    low_usd: float | None
    high_usd: float | None

    def __str__(self) -> str:
        if self.low_usd is None or self.high_usd is None:
            dollars = "no price is known"
        else:
            dollars = f"${self.low_usd:.4f} to ${self.high_usd:.4f}"
        return (
            f"{self.judge}: {self.calls} calls ({self.cached} more are in the cache), about {self.input_tokens} input "
            f"tokens (characters / 4), at most {self.output_tokens} output tokens, {dollars}"
        )


def estimate(requests: Sequence[JudgeRequest], judge: Judge, cache: AnswerCache | None = None) -> CostEstimate:
    """What asking a judge would take, without asking it anything."""
    from edgetune.judging.asking.cache import find_reply, request_keys

    keys = request_keys(judge, requests)
    new = {
        key: request
        for key, request in zip(keys, requests, strict=True)
        if find_reply(cache, key, request.form) is None
    }
    calls = len(new)
    cached = sum(key not in new for key in keys)
    prompts = [[message.content for message in request.messages()] for request in new.values()]
    input_tokens = sum(map(estimate_prompt_tokens, prompts))
    output_tokens = calls * judge.max_tokens
    low = high = 0.0
    price = price_of(judge)
    if price is not None:
        low = cost_usd(price, input_tokens, calls * min(SHORTEST_VERDICT_TOKENS, judge.max_tokens))
        high = cost_usd(price, input_tokens, output_tokens)
    known = price is not None
    return CostEstimate(
        judge=judge.name,
        calls=calls,
        cached=cached,
        repeated=len(requests) - calls - cached,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        low_usd=low if known else None,
        high_usd=high if known else None,
    )


def price_of(judge: Judge) -> Price | None:
    """A judge's price; one on this machine costs nothing, and an endpoint's may be unknown (None)."""
    return judge.price if isinstance(judge, EndpointJudge) else Price(input=0, output=0)


def require_prices(judges: Iterable[Judge]) -> None:
    """Raise UsageError when a judge has no price, so that no cap on the cost could hold."""
    for judge in judges:
        if price_of(judge) is None:
            raise UsageError(
                "--max-cost needs to know what a call costs, and this judge has no price",
                where=judge.name,
                remedy="write price: {input: ..., output: ...} (US dollars for a million tokens) into its file",
            )


def cost_usd(price: Price | None, input_tokens: int, output_tokens: int) -> float:
    """US dollars for so many tokens; 0 where no price is known."""
    return 0.0 if price is None else (price.input * input_tokens + price.output * output_tokens) / 1e6


def estimate_prompt_tokens(contents: Iterable[str]) -> int:
    """About how many tokens a prompt of these messages has, their markup included."""
    return sum(count_tokens(content) + TOKENS_AROUND_A_MESSAGE for content in contents)


def count_tokens(text: str) -> int:
    """About how many tokens a text has: ASCII characters / 4, and every other character by itself."""
    ascii_characters = len(text.encode("ascii", "ignore"))
    return math.ceil(ascii_characters / 4) + len(text) - ascii_characters
