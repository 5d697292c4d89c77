"""How long a busy endpoint is waited for, and what counts as busy."""

from __future__ import annotations

from typing import Any

import pytest
from support.asked import VERDICT, ask, items, suite
from support.stub_endpoint import StubEndpoint, chat_reply, error_reply

from edgetune.judging.asking import retry
from edgetune.judging.asking.limits import RequestPace
from edgetune.judging.asking.request import Reply
from edgetune.judging.subjects.endpoint import open_endpoint

pytestmark = pytest.mark.usefixtures("quick_backoff")


class FakeClock:
    """Time that passes only where requests are held back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.waits = 0.0, list[float]()
        monkeypatch.setattr(RequestPace, "pause", lambda _, seconds: self._pass(seconds))

    def _pass(self, seconds: float) -> None:
        self.seconds += seconds
        self.waits.append(seconds)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"retry-after": "0"},
        {"retry-after": "-5"},
        {"retry-after": "nan"},
        {"retry-after": "Thu, 01 Jan 2015 00:00:00 GMT"},
        {"retry-after-ms": "0"},
    ],
    ids=["none", "zero", "negative", "nan", "a date that has passed", "no milliseconds"],
)
def test_a_server_that_asks_for_no_wait_gets_the_own_backoff(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(retry, "FIRST_BACKOFF_SECONDS", 0.5)
    clock = FakeClock(monkeypatch)

    def answer(body: dict[str, Any]) -> Any:
        return error_reply(429, "busy", headers=headers) if clock.seconds < 10 else VERDICT

    with StubEndpoint(answer) as stub:
        (reply,), _ = ask(stub, connections=1)
    assert isinstance(reply, Reply)
    assert len(stub.requests) <= 6
    for attempt, seconds in enumerate(clock.waits, start=1):
        assert 0.25 * 2**attempt <= seconds <= 0.5 * 2**attempt


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after-ms": "2500", "retry-after": "3"}, 2.5, 2.5),
        ({"retry-after": "86400"}, 120, 120),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m3.5s"}, 63.5, 63.5),
        ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "1m"}, 0, 1),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, 0, 1),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_what_a_server_asks_for_is_waited_for_as_long_as_is_sensible(
    monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], least: float, most: float
) -> None:
    clock = FakeClock(monkeypatch)
    with StubEndpoint(lambda body: VERDICT if clock.waits else error_reply(status, "busy", headers=headers)) as stub:
        (reply,), _ = ask(stub)
    assert isinstance(reply, Reply)
    (waited,) = clock.waits
    assert least <= waited <= most


def test_a_limit_that_a_gateway_tells_with_status_403_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(monkeypatch)
    limits = [
        error_reply(403, "Out of call volume quota", headers={"retry-after": "9"}),
        error_reply(403, "You have exceeded a secondary rate limit"),
    ]
    with StubEndpoint(lambda body: limits.pop(0) if limits else VERDICT) as stub:
        (reply,), _ = ask(stub)
    assert isinstance(reply, Reply)
    assert clock.waits[0] == 9
    assert len(clock.waits) == 2


def test_an_answer_that_broke_off_is_asked_for_again() -> None:
    """What OpenRouter sends with status 200 when a provider fails in the middle."""
    broken = chat_reply("The first wor", finish="error")
    broken["choices"][0]["error"] = {"code": 502, "message": "provider disconnected"}
    replies = [broken]
    with StubEndpoint(lambda body: replies.pop() if replies else "whole") as stub:
        (answer,) = open_endpoint(f"{stub.url}#m").answers(items(1), suite())
    assert answer.text == "whole"
