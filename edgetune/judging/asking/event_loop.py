"""Running coroutines from ordinary code, even where an event loop is already running, as in a notebook."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class EventLoop:
    """An event loop for the `with` block; tasks that one `run` starts may continue in the next."""

    def __enter__(self) -> EventLoop:
        self._runner = asyncio.Runner()
        self._thread = ThreadPoolExecutor(max_workers=1) if _a_loop_runs_here() else None
        return self

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Its result. Ctrl-C cancels it and raises KeyboardInterrupt."""
        if self._thread is None:
            return self._runner.run(work)
        job = self._thread.submit(self._runner.run, work)
        try:
            return job.result()
        except KeyboardInterrupt:
            loop = self._runner.get_loop()
            for task in asyncio.all_tasks(loop):
                loop.call_soon_threadsafe(task.cancel)
            raise

    def __exit__(self, *problem: object) -> None:
        if self._thread is None:
            self._runner.close()
        else:
            self._thread.submit(self._runner.close).result()
            self._thread.shutdown()


def _a_loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
