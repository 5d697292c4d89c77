"""One OpenAI-compatible endpoint: a request body goes in, a completion comes out, whatever it takes in between.

Retries, the server's wishes about waiting, the rate limit and the budget are kept here. What a request asks for, and
what is made of its answer, is the caller's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgetune.data.example import Message
from edgetune.errors import EdgetuneError
from edgetune.judging.asking.completion import Completion, Unreadable, explain_error, hide_key, read_completion
from edgetune.judging.asking.cost import Budget, cost_usd, estimate_prompt_tokens
from edgetune.judging.asking.credentials import read_key
from edgetune.judging.asking.limits import Pace
from edgetune.judging.asking.retry import LONGEST_WAIT_SECONDS, asked_wait_seconds, backoff_seconds, is_temporary
from edgetune.judging.asking.transport import explain_failure, open_http_client
from edgetune.judging.judge_file import EndpointJudge

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai._types import RequestOptions

ATTEMPTS_TO_REACH = 3
"""Tries before an endpoint that was never reached is given up."""
LEAST_FAILURES_IN_ROW = 16
"""So many requests, or two per connection, may fail one after the other before the endpoint is given up."""


class Unanswered(Exception):
    """A request without an answer, after all attempts. The text says why, for people, and holds no key."""


class Refused(Exception):
    """The endpoint does not take the request as it is. `parameter` and `code` are what the error's body names."""

    def __init__(self, reason: str, parameter: str = "", code: str = "") -> None:
        super().__init__(reason)
        self.parameter, self.code = parameter, code


def to_json(messages: Iterable[Message]) -> list[dict[str, str]]:
    """A conversation as endpoints take it. Half a surrogate pair, which no UTF-8 can hold, becomes a question mark."""
    return [
        {"role": message.role, "content": message.content.encode(errors="replace").decode()} for message in messages
    ]


class _Trouble(Exception):
    """One attempt that failed and may be repeated.

    `wait_seconds` is what the server asks for; `crowded` tells that it takes no more from anyone now; `connected` is
    False when nobody answered at the address; a `billed` attempt may have to be paid for.
    """

    def __init__(
        self,
        reason: str,
        *,
        wait_seconds: float | None = None,
        crowded: bool = False,
        connected: bool = True,
        billed: bool = False,
    ) -> None:
        super().__init__(reason)
        self.wait_seconds, self.crowded, self.connected, self.billed = wait_seconds, crowded, connected, billed


class ChatEndpoint:
    """A connection to one endpoint, for one event loop: `async with ChatEndpoint(judge, budget, on_note) as chat`.

    The judge gives the address, the limits and the price; its key is read from the environment or .env, and kept from
    every message. Raises UsageError when the variable is not set.
    """

    def __init__(self, judge: EndpointJudge, budget: Budget, on_note: Callable[[str], None]) -> None:
        self._judge, self._budget, self._note = judge, budget, on_note
        self._key = read_key(judge)
        self._pace = Pace(judge.requests_per_minute)
        self._options: RequestOptions = {}
        self._reached = False
        self._failures_in_row = 0
        self._told_of_long_wait = False

    async def __aenter__(self) -> ChatEndpoint:
        import openai

        self._client: AsyncOpenAI = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._judge.url,
            max_retries=0,
            http_client=open_http_client(self._judge),
        )
        if self._key is None:
            self._options["headers"] = {"Authorization": openai.omit}
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self._client.close()

    async def complete(self, body: dict[str, Any], max_tokens: int) -> Completion:
        """The completion of a request to chat/completions, which writes at most `max_tokens`.

        Raises Unanswered, Refused, CapReached; and EdgetuneError when no request can succeed (a wrong key, no such
        model, an empty account, nobody at the address).
        """
        input_tokens = estimate_prompt_tokens([message["content"] for message in body["messages"]])
        # Twice the estimate: a prompt of rare words or digits has more tokens than its length tells.
        worst_usd = cost_usd(self._judge.price, 2 * input_tokens, max_tokens)
        spent_usd = 0.0
        for attempt in range(1, self._judge.attempts + 1):
            await self._pace.wait()
            try:
                completion = await self._attempt(body, input_tokens, worst_usd)
            except _Trouble as problem:
                trouble = problem
            else:
                self._failures_in_row = 0
                return replace(completion, cost_usd=completion.cost_usd + spent_usd)
            spent_usd += worst_usd if trouble.billed else 0.0
            if not trouble.connected and not self._reached and attempt >= min(ATTEMPTS_TO_REACH, self._judge.attempts):
                raise self.hopeless(f"nobody can be reached there ({trouble})", "check the URL and the network")
            if attempt < self._judge.attempts:
                await self._wait_after(trouble, attempt)
        self._count_failure(trouble)
        raise Unanswered(f"{trouble}, after {attempt} attempt{'s' * (attempt > 1)}")

    async def _attempt(self, body: dict[str, Any], input_tokens: int, worst_usd: float) -> Completion:
        """One try, with its worst case reserved while it lasts and what it took settled at its end."""
        await self._budget.reserve(worst_usd)
        spent_usd = worst_usd  # of an attempt whose end is not seen, for it may be billed
        try:
            started = time.perf_counter()
            try:
                content = await self._post(body)
            except (Refused, EdgetuneError):
                spent_usd = 0.0
                raise
            except _Trouble as trouble:
                spent_usd = worst_usd if trouble.billed else 0.0
                raise
            seconds = time.perf_counter() - started
            try:
                completion = read_completion(content, input_tokens, self._key)
            except Unreadable as problem:
                raise _Trouble(str(problem), billed=True) from None
            spent_usd = cost_usd(self._judge.price, completion.input_tokens, completion.output_tokens)
            return replace(completion, cost_usd=spent_usd, seconds=seconds)
        finally:
            self._budget.settle(worst_usd, spent_usd)

    async def _post(self, body: dict[str, Any]) -> bytes:
        """The body of a good response. Raises Refused, EdgetuneError or _Trouble."""
        import httpx2
        import openai

        try:
            async with asyncio.timeout(self._judge.timeout_seconds):
                # The raw response: building openai's objects from it takes longer than all the rest of a call.
                response = await self._client.post(
                    "/chat/completions", cast_to=httpx2.Response, body=body, options=self._options
                )
        except openai.APIStatusError as problem:
            self._reached = True
            raise self._sort(problem.response.status_code, problem.response.headers, problem.response.content) from None
        except (TimeoutError, openai.APIConnectionError) as problem:
            reason, connected = explain_failure(problem, self._judge.timeout_seconds)
            raise _Trouble(hide_key(reason, self._key), connected=connected, billed=connected) from None
        self._reached = True
        return response.content

    def _sort(self, status: int, headers: Any, content: bytes) -> Exception:
        """What an error's status and body mean: hopeless for all requests, for this one, or only for now."""
        message, parameter, code = explain_error(content, self._key)
        reason = f"HTTP {status}: {message}" if message else f"HTTP {status}"
        if status in (401, 403):
            key = self._judge.key
            remedy = f"check the key in {key}" if self._key else "name the variable that holds a key, as its key"
            refused = "the key" if self._key else "a call without a key"
            return self.hopeless(f"the endpoint refuses {refused} ({reason})", remedy)
        if status == 402 or code in ("insufficient_quota", "billing_hard_limit_reached"):
            return self.hopeless(f"the account cannot pay ({reason})", "see to its billing, then run the same again")
        if status in (404, 405) or code == "model_not_found":
            what = f"there is no model {self._judge.model} at {self._judge.url} ({reason})"
            return self.hopeless(what, "check the model's name and the URL, which mostly ends in /v1")
        if status >= 500 and any(word in message for word in ("logprobs", "response_format", "json_schema")):
            return Refused(reason, parameter, code)
        if is_temporary(status):
            crowded = status in (429, 503)
            return _Trouble(reason, wait_seconds=asked_wait_seconds(headers) if crowded else None, crowded=crowded)
        return Refused(reason, parameter, code)

    async def _wait_after(self, trouble: _Trouble, attempt: int) -> None:
        """Wait as long as the server asks for, which holds all requests back, or as long as backoff says."""
        if trouble.wait_seconds is None:
            seconds = backoff_seconds(attempt)
            if trouble.crowded:
                self._pace.pause(seconds)
            await asyncio.sleep(seconds)
            return
        if trouble.wait_seconds > LONGEST_WAIT_SECONDS and not self._told_of_long_wait:
            self._told_of_long_wait = True
            self._note(
                f"{self._judge.name} asks to wait for {trouble.wait_seconds:.0f} s; "
                f"{LONGEST_WAIT_SECONDS:.0f} s is the longest that is waited before each try"
            )
        self._pace.pause(min(trouble.wait_seconds, LONGEST_WAIT_SECONDS))

    def _count_failure(self, trouble: _Trouble) -> None:
        self._failures_in_row += 1
        if self._failures_in_row >= max(LEAST_FAILURES_IN_ROW, 2 * self._judge.connections):
            raise self.hopeless(
                f"{self._failures_in_row} requests failed one after the other, the last with: {trouble}",
                "run the same again when it works: answers that are in the cache are not asked for again",
            )

    def hopeless(self, what: str, remedy: str) -> EdgetuneError:
        """The error of an endpoint that can answer no request."""
        return EdgetuneError(what, where=self._judge.name, remedy=remedy)
