"""One OpenAI-compatible endpoint: from a request body to a completion.

This module handles retries, the waits that a server asks for, the rate limit and the budget. Callers build the request
and read the answer.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgetune.data.example import Message
from edgetune.errors import EdgetuneError
from edgetune.judging.asking.completion import (
    Completion,
    Unreadable,
    error_status,
    explain_error,
    hide_key,
    read_completion,
)
from edgetune.judging.asking.cost import Budget, cost_usd, estimate_prompt_tokens
from edgetune.judging.asking.limits import RequestPace
from edgetune.judging.asking.refusal import Refused, find_cause, named_features, names_parameters
from edgetune.judging.asking.retry import LONGEST_WAIT_SECONDS, asked_wait_seconds, is_temporary, wait_seconds
from edgetune.judging.asking.transport import explain_failure, open_http_client
from edgetune.judging.suites.address import base_of, completions_url, hide_secrets, key_headers, lacks_api_version
from edgetune.judging.suites.judge_file import KEY_VARIABLE, EndpointJudge

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai._types import RequestOptions

ATTEMPTS_TO_REACH = 3
"""Attempts before an endpoint that was never reached counts as unreachable."""
LEAST_FAILURES_IN_ROW = 16
"""After this many failures in a row, or two per connection, the run stops."""


@dataclass(eq=False)
class Unanswered(Exception):
    """A request without an answer. `reason` is for people, and holds no key.

    `for_good` says that this prompt is refused however often it is sent; otherwise all attempts failed, and a later
    one may succeed.
    """

    reason: str
    for_good: bool = False

    def __str__(self) -> str:
        return self.reason


def to_json(messages: Iterable[Message]) -> list[dict[str, str]]:
    """A conversation as endpoints take it. An unpaired surrogate, which UTF-8 cannot hold, becomes a question mark."""
    return [
        {"role": message.role, "content": message.content.encode(errors="replace").decode()} for message in messages
    ]


@dataclass(eq=False)
class _Trouble(Exception):
    """One attempt that failed and may be repeated.

    `wait_seconds` is what the server asks for. A `crowded` server takes no more requests now. `connected` is False when
    the address gave no response. A `billed` attempt may cost money.
    """

    reason: str
    wait_seconds: float | None = None
    crowded: bool = False
    connected: bool = True
    billed: bool = False

    def __str__(self) -> str:
        return self.reason


class ChatEndpoint:
    """A connection to one endpoint, for one event loop: `async with ChatEndpoint(judge, budget, on_note) as chat`.

    The judge gives the address, the limits and the price; its key is read from the environment or .env, and kept from
    every message. Raises UsageError when the variable is not set.
    """

    def __init__(self, judge: EndpointJudge, budget: Budget, on_note: Callable[[str], None]) -> None:
        self._judge, self._budget, self._note = judge, budget, on_note
        self._key = judge.read_key()
        self._pace = RequestPace(judge.requests_per_minute)
        self._options: RequestOptions = {}
        self._reached = False
        self._failures_in_row = 0
        self._told_of_long_wait = False

    async def __aenter__(self) -> ChatEndpoint:
        import openai

        self._client: AsyncOpenAI = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=base_of(self._judge.url),
            max_retries=0,
            http_client=open_http_client(self._judge),
        )
        headers = key_headers(self._judge.url, self._key)
        self._options["headers"] = {"Authorization": openai.omit, **headers}
        # A redirect to another host takes every header along but Authorization.
        self._options["follow_redirects"] = "api-key" not in headers
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self._client.close()

    async def complete(self, body: dict[str, Any], max_tokens: int, *, understood: bool = False) -> Completion:
        """The completion of a request to chat/completions, which writes at most `max_tokens`.

        `understood` says that the endpoint has accepted a request of this form before, so the form is not the cause of
        a failure. Raises Unanswered, Refused, CapReached; and EdgetuneError when no request can succeed (a wrong key,
        no such model, an account without credit, no server at the address).
        """
        input_tokens = estimate_prompt_tokens([message["content"] for message in body["messages"]])
        # Twice the estimate: a prompt of rare words or digits has more tokens than its length tells.
        worst_usd = cost_usd(self._judge.price, 2 * input_tokens, max_tokens)
        spent_usd = 0.0
        for attempt in range(1, self._judge.attempts + 1):
            await self._pace.wait()
            try:
                completion = await self._attempt(body, input_tokens, worst_usd, understood=understood)
            except _Trouble as problem:
                trouble = problem
            else:
                self._failures_in_row = 0
                return replace(completion, cost_usd=completion.cost_usd + spent_usd)
            spent_usd += worst_usd if trouble.billed else 0.0
            if not trouble.connected and not self._reached and attempt >= min(ATTEMPTS_TO_REACH, self._judge.attempts):
                raise self.hopeless(f"the endpoint cannot be reached ({trouble})", "check the URL and the network")
            if attempt < self._judge.attempts:
                await self._wait_after(trouble, attempt)
        self._count_failure(trouble)
        raise Unanswered(f"{trouble}, after {attempt} attempt{'s' * (attempt > 1)}")

    async def _attempt(
        self, body: dict[str, Any], input_tokens: int, worst_usd: float, *, understood: bool
    ) -> Completion:
        """One attempt: its worst case is reserved while it lasts, and its cost is settled at its end."""
        await self._budget.reserve(worst_usd)
        spent_usd = worst_usd  # of an attempt whose end is not seen, for it may be billed
        try:
            started = time.perf_counter()
            try:
                content = await self._post(body, understood=understood)
                completion = self._read(content, input_tokens, understood=understood)
            except (Refused, EdgetuneError):
                spent_usd = 0.0
                raise
            except _Trouble as trouble:
                spent_usd = worst_usd if trouble.billed else 0.0
                raise
            seconds = time.perf_counter() - started
            spent_usd = cost_usd(self._judge.price, completion.input_tokens, completion.output_tokens)
            return replace(completion, cost_usd=spent_usd, seconds=seconds)
        finally:
            self._budget.settle(worst_usd, spent_usd)

    def _read(self, content: bytes, input_tokens: int, *, understood: bool) -> Completion:
        """The completion in a successful response, which may still hold an error."""
        try:
            return read_completion(content, input_tokens, self._key)
        except Unreadable as problem:
            status = error_status(content)
            found = None if status is None else self._sort(status, {}, content, understood=understood)
            if isinstance(found, Refused) and (found.cause or found.named):
                raise found from None
            raise _Trouble(str(problem), billed=True) from None

    async def _post(self, body: dict[str, Any], *, understood: bool) -> bytes:
        """The body of a successful response. Raises Refused, EdgetuneError or _Trouble."""
        import httpx2
        import openai

        try:
            async with asyncio.timeout(self._judge.timeout_seconds):
                # The raw response: building openai's objects from it takes longer than all the rest of a call.
                response = await self._client.post(
                    completions_url(self._judge.url), cast_to=httpx2.Response, body=body, options=self._options
                )
        except openai.APIStatusError as problem:
            self._reached = True
            response = problem.response
            raise self._sort(response.status_code, response.headers, response.content, understood=understood) from None
        except (TimeoutError, openai.APIConnectionError) as problem:
            reason, connected = explain_failure(problem, self._judge.timeout_seconds)
            raise _Trouble(hide_key(reason, self._key), connected=connected, billed=connected) from None
        self._reached = True
        return response.content

    def _sort(self, status: int, headers: Mapping[str, str], content: bytes, *, understood: bool) -> Exception:
        """What an error's status and body mean: no request can succeed, this one cannot, or it may later."""
        message, parameter, code = explain_error(content, self._key)
        reason = f"HTTP {status}: {message}" if message else f"HTTP {status}"
        said = f"{parameter} {code} {message}"
        if status == 402 or code in ("insufficient_quota", "billing_hard_limit_reached"):
            return self.hopeless(
                f"the account has no credit left ({reason})", "check its billing, then run the same command again"
            )
        cause = None if status == 401 else find_cause(said, status)
        named = named_features(said, status)
        if cause is not None:
            return Refused(reason, named, cause=cause)
        if status == 400 and re.search(r"(?i)invalid[ _]api[ _]?key|api[ _]?key (?:is )?(?:not valid|invalid)", said):
            status = 401
        if status == 403 and (headers.get("retry-after") or "rate limit" in said.casefold()):
            status = 429  # a gateway's limit; it passes, as one of a key does not
        last = self._explain_hopeless(status, headers, code, reason)
        if last is not None:
            # Some gateways refuse a parameter with the status of a wrong key or address.
            about_form = named or (status >= 403 and names_parameters(said) and not understood)
            return Refused(reason, named, last=last) if about_form else last
        if status >= 500 and named and not understood:
            return Refused(reason, named, for_good=status == 501)
        if is_temporary(status):
            return _Trouble(reason, wait_seconds=asked_wait_seconds(headers), crowded=status in (429, 503, 529))
        return Refused(reason, named)

    def _explain_hopeless(
        self, status: int, headers: Mapping[str, str], code: str, reason: str
    ) -> EdgetuneError | None:
        """The error of a status that every other request would get too; None for all others."""
        judge = self._judge
        if 300 <= status < 400:
            where = f" to {hide_secrets(headers['location'])}" if headers.get("location") else ""
            what = f"the endpoint redirects all requests{where} ({reason})"
            return self.hopeless(what, "use that address as the URL")
        if status in (404, 405) or code == "model_not_found":
            remedy = "check the model's name and the URL, which usually ends in /v1"
            if lacks_api_version(judge.url):
                remedy = "write the URL as .../openai/deployments/DEPLOYMENT?api-version=VERSION, or .../openai/v1"
            return self.hopeless(f"there is no model {judge.model} at {judge.url} ({reason})", remedy)
        if status not in (401, 403):
            return None
        if self._key is None:
            remedy = f"name a key's variable in the judge's file (key: NAME), or set {KEY_VARIABLE} for URL#MODEL"
            return self.hopeless(f"the endpoint refuses a call without a key ({reason})", remedy)
        if status == 401:
            return self.hopeless(f"the endpoint refuses the key ({reason})", f"check the key in {judge.key}")
        remedy = f"check the permissions and network restrictions of the key in {judge.key}"
        return self.hopeless(f"the endpoint does not permit this with the key ({reason})", remedy)

    async def _wait_after(self, trouble: _Trouble, attempt: int) -> None:
        """Wait before the next attempt. Where the server is overloaded, all requests wait."""
        asked = trouble.wait_seconds
        if asked is not None and asked > LONGEST_WAIT_SECONDS and not self._told_of_long_wait:
            self._told_of_long_wait = True
            self._note(
                f"{self._judge.name} asks to wait for {asked:.0f} s; "
                f"edgetune waits at most {LONGEST_WAIT_SECONDS:.0f} s before each attempt"
            )
        seconds = wait_seconds(asked, attempt)
        if trouble.crowded:
            self._pace.pause(seconds)
        else:
            await asyncio.sleep(seconds)

    def _count_failure(self, trouble: _Trouble) -> None:
        self._failures_in_row += 1
        if self._failures_in_row >= max(LEAST_FAILURES_IN_ROW, 2 * self._judge.connections):
            raise self.hopeless(
                f"{self._failures_in_row} requests in a row failed, the last with: {trouble}",
                "run the same command again when it works: answers in the cache are not requested again",
            )

    def hopeless(self, what: str, remedy: str) -> EdgetuneError:
        """The error of an endpoint that can answer no request."""
        return EdgetuneError(what, where=self._judge.name, remedy=remedy)
