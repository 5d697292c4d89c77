"""When a request is tried again, and how long to wait before: what the server asks for, or exponential backoff."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT_SECONDS = 120.0
"""What a server may ask for; more is cut to this."""
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0

_TEMPORARY = {408, 409, 425, 429}


def is_temporary(status: int) -> bool:
    """True when the same request may succeed later: the server is busy, or failed. 501 says that it never will."""
    return status in _TEMPORARY or (status >= 500 and status != 501)


def asked_wait_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """What Retry-After asks for: seconds, or the time until an HTTP date (RFC 9110, 10.2.3); None without one.

    `headers` must find names in lower case. A date that has passed is 0.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None


def backoff_seconds(attempt: int) -> float:
    """How long to wait after the failed attempt of this number (from 0): doubled each time, half of it by chance.

    The chance keeps requests that failed together from coming back together.
    """
    longest = min(FIRST_BACKOFF_SECONDS * 2**attempt, LONGEST_BACKOFF_SECONDS)
    return longest * random.uniform(0.5, 1)
