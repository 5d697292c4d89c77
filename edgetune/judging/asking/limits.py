"""How fast requests may start: evenly spread over a minute, and paused when the server asks for it."""

from __future__ import annotations

import asyncio
import random
import time


class RequestPace:
    """The pace of one event loop's requests, which call `wait` before they start."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self._interval_seconds = 0.0 if requests_per_minute is None else 60.0 / requests_per_minute
        self._next_slot = 0.0
        self._paused_until = 0.0

    async def wait(self) -> None:
        """Return when the next request may start."""
        while True:
            now = time.monotonic()
            paused_seconds = self._paused_until - now
            if paused_seconds > 0:
                # Spread the restart, so that an overloaded server is not overloaded again.
                await asyncio.sleep(paused_seconds + random.uniform(0, min(1.0, 0.1 * paused_seconds)))
                continue
            if not self._interval_seconds:
                return
            slot = max(now, self._next_slot)
            self._next_slot = slot + self._interval_seconds
            if slot > now:
                await asyncio.sleep(slot - now)
            if self._paused_until <= time.monotonic():
                return

    def pause(self, seconds: float) -> None:
        """Start no request for this time."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
