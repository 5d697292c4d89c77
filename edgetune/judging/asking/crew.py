"""Concurrent jobs: started in order, a limited number at a time, with their results in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

Asked = TypeVar("Asked")
Result = TypeVar("Result")


async def work_through(
    questions: Sequence[Asked], work: Callable[[Asked], Awaitable[Result]], at_once: int
) -> AsyncGenerator[Result, None]:
    """The results in the order of the questions, each as soon as it and all before it are done.

    The first exception of any job is raised, and cancels the other jobs; leaving the iteration cancels them too.
    """
    results = [asyncio.get_running_loop().create_future() for _ in questions]
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = iter(zip(questions, results, strict=True))

    async def worker() -> None:
        for question, result in waiting:
            try:
                result.set_result(await work(question))
            except Exception as problem:
                if not failed.done():
                    failed.set_exception(problem)
                for other in workers:  # now: a job that waits for a lock of this one must not continue
                    if other is not asyncio.current_task():
                        other.cancel()
                return

    workers = [asyncio.create_task(worker()) for _ in range(min(at_once, len(questions)))]
    try:
        for result in results:
            if not result.done():
                await asyncio.wait([result, failed], return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
            yield result.result()
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        if failed.done():
            failed.exception()  # seen, so that the loop does not report it
