"""When a request is repeated, and how long to wait before: as the server asks, and at least the own backoff."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT_SECONDS = 120.0
"""The longest wait that a server may ask for; longer ones are cut to this."""
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0

_TEMPORARY = {408, 409, 425, 429}


def is_temporary(status: int) -> bool:
    """True when the same request may succeed later: the server is busy, or failed. 501 means that it never will."""
    return status in _TEMPORARY or (status >= 500 and status != 501)


def wait_seconds(asked_seconds: float | None, attempt: int) -> float:
    """How long to wait after the failed attempt of this number (from 1): the longer of what the server asks for, cut to
    LONGEST_WAIT_SECONDS, and the own backoff.

    A server that asks for no wait at all (`Retry-After: 0`) is as busy as one that says nothing.
    """
    return max(min(asked_seconds or 0.0, LONGEST_WAIT_SECONDS), backoff_seconds(attempt))


def asked_wait_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The wait that a server asks for, in seconds from 0 up; None where it asks for none that can be read.

    The first of these: `retry-after-ms` (Azure), Retry-After in seconds or as an HTTP date (RFC 9110, 10.2.3), and
    `x-ratelimit-reset-requests` or `-tokens` (OpenAI) of an exhausted limit. `headers` must find names in
    lower case. A date that has passed is 0.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "").strip()
    seconds = _number(value)
    if seconds is None and value:
        seconds = _seconds_until(value, now or datetime.now(UTC))
    return seconds if seconds is not None else _seconds_to_reset(headers)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _seconds_until(text: str, now: datetime) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())
    except (ValueError, OverflowError):
        return None


def _seconds_to_reset(headers: Mapping[str, str]) -> float | None:
    """The longest time, such as 1s, 6m0s or 20ms, until an exhausted limit is reset."""
    times = [
        _read_duration(headers.get(f"x-ratelimit-reset-{limit}", ""))
        for limit in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{limit}", "").strip() == "0"
    ]
    return max((seconds for seconds in times if seconds is not None), default=None)


def _read_duration(text: str) -> float | None:
    if not re.fullmatch(r"(?:\d+(?:\.\d+)?(?:ms|[hms]))+", text):
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[hms])", text)
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def backoff_seconds(attempt: int) -> float:
    """The own wait: doubled with each attempt, half of it random.

    The random part keeps requests that failed together from returning together.
    """
    longest = min(FIRST_BACKOFF_SECONDS * 2**attempt, LONGEST_BACKOFF_SECONDS)
    return longest * random.uniform(0.5, 1)
