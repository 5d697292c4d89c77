"""What judging costs: an estimate before the first call, and a cap that also holds for calls in progress."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.errors import UsageError
from edgetune.judging.suites.judge_file import Judge, Price

if TYPE_CHECKING:
    from edgetune.judging.asking.cache import AnswerCache
    from edgetune.judging.asking.request import JudgeRequest

TOKENS_AROUND_A_MESSAGE = 4
SHORTEST_VERDICT_TOKENS = 20
"""A verdict with a very short reason; the low end of an estimate."""


class CapReached(Exception):
    """The next call could cost more than is left, and no call in progress could free enough."""


class Budget:
    """The spending limit in US dollars over all calls of a command; None is no limit.

    A call reserves its worst case and settles its real cost afterwards, so the cap holds for any number of calls in
    progress. `spent_usd` counts a call that ended without an answer (a timeout, a broken connection) as its worst
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
        """Set aside a call's worst case; waits while calls in progress may free enough. Raises CapReached."""
        while self.max_usd is not None and self.spent_usd + math.fsum(self._reserved) + usd > self.max_usd:
            if not self._reserved:
                raise CapReached
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self._reserved.append(usd)

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Replace a reservation by the call's cost."""
        self._reserved.remove(reserved_usd)
        self.spent_usd += spent_usd
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


@dataclass(frozen=True)
class Costs:
    """The judges' costs: verdicts asked for, verdicts from the cache, and US dollars (None: no price is known)."""

    asked: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0

    def __add__(self, other: Costs) -> Costs:
        """The sum; without a price of one there is no price of both."""
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
    """An estimate for one judge. Tokens are about characters / 4; `output_tokens` is an upper limit.

    `calls` leaves out the `cached` requests, and the `repeated` ones that equal another request of the list. `low_usd`
    and `high_usd` are None where no price is known; they do not include retries of failed calls.
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
            dollars = "price unknown"
        else:
            dollars = f"${self.low_usd:.4f} to ${self.high_usd:.4f}"
        return (
            f"{self.judge}: {self.calls} calls ({self.cached} more are in the cache), about {self.input_tokens} input "
            f"tokens (characters / 4), at most {self.output_tokens} output tokens, {dollars}"
        )


def estimate(requests: Sequence[JudgeRequest], judge: Judge, cache: AnswerCache | None = None) -> CostEstimate:
    """An estimate of asking a judge, without asking it."""
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
    output_tokens, price = calls * judge.max_tokens, judge.price
    shortest = calls * min(SHORTEST_VERDICT_TOKENS, judge.max_tokens)
    return CostEstimate(
        judge=judge.name,
        calls=calls,
        cached=cached,
        repeated=len(requests) - calls - cached,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        low_usd=None if price is None else cost_usd(price, input_tokens, shortest),
        high_usd=None if price is None else cost_usd(price, input_tokens, output_tokens),
    )


def require_price(judge: Judge) -> None:
    """Raise UsageError when a judge has no price, so that no cap on the cost could hold."""
    if judge.price is None:
        raise UsageError(
            "--max-cost needs the price of a call, and this judge has none",
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
    """About how many tokens a text has: ASCII characters / 4, and one for every other character."""
    ascii_characters = len(text.encode("ascii", "ignore"))
    return math.ceil(ascii_characters / 4) + len(text) - ascii_characters
