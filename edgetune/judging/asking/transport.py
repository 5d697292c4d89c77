"""The HTTP client below the openai package, and what its failures mean."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgetune.judging.suites.judge_file import EndpointJudge

if TYPE_CHECKING:
    from httpx2 import AsyncClient

CONNECT_SECONDS = 10.0
_NOBODY_THERE = (socket.gaierror, ConnectionRefusedError, ssl.SSLError)
_NO_WAY_THERE = (errno.ENETUNREACH, errno.EHOSTUNREACH)


def open_http_client(judge: EndpointJudge) -> AsyncClient:
    """A client with as many connections as the judge may have.

    It sends through aiohttp where that is installed, which takes a quarter less of the processor than httpx2.
    """
    import httpx2
    import openai

    limits = httpx2.Limits(max_connections=judge.connections, max_keepalive_connections=judge.connections)
    timeout = httpx2.Timeout(judge.timeout_seconds, connect=min(CONNECT_SECONDS, judge.timeout_seconds))
    try:
        return openai.DefaultAioHttpClient(limits=limits, timeout=timeout)
    except RuntimeError:  # what openai raises where aiohttp is not installed
        return openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout)


def explain_failure(problem: BaseException, timeout_seconds: float) -> tuple[str, bool]:
    """Why a request has no response, and whether a server was reached."""
    import httpx2

    causes = list(_causes(problem))
    below = problem.__cause__
    # openai's bridge to aiohttp calls every failed or lost connection a ConnectTimeout; what it was is below that.
    lost = any(type(cause).__module__.startswith("aiohttp") and not isinstance(cause, TimeoutError) for cause in causes)
    nobody = any(isinstance(cause, _NOBODY_THERE) or getattr(cause, "errno", None) in _NO_WAY_THERE for cause in causes)
    if nobody or isinstance(below, httpx2.ConnectError):
        return _say(causes), False
    if isinstance(below, httpx2.ConnectTimeout) and not lost:
        return "no connection within the time limit", False
    if isinstance(problem, TimeoutError) or (isinstance(below, httpx2.TimeoutException) and not lost):
        return f"no answer within {timeout_seconds:g} s", True
    return f"the connection was lost: {_say(causes)}", True


def _causes(problem: BaseException | None) -> Iterator[BaseException]:
    while problem is not None:
        yield problem
        problem = problem.__cause__


def _say(causes: list[BaseException]) -> str:
    """The text of the first error below openai's own that has one."""
    return next((str(cause) for cause in causes[1:] if str(cause)), type(causes[-1]).__name__)
