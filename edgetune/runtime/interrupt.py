"""Ctrl-C while native code runs: long calls into llama.cpp ask now and then whether they should stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """True once the user has pressed Ctrl-C. Native callbacks read it; they must not raise."""

    def __init__(self) -> None:
        self.is_set = False


@contextmanager
def deferred_interrupt() -> Iterator[StopFlag]:
    """Hold back Ctrl-C inside the block, where it sets the flag, and deliver it at the end.

    A KeyboardInterrupt raised inside a callback from native code would be printed and lost. Outside the main thread,
    where Python delivers no signals, and where SIGINT is ignored, the flag stays unset.
    """
    flag = StopFlag()
    former = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(former):
        yield flag
        return

    def set_the_flag(_signal: int, _frame: FrameType | None) -> None:
        flag.is_set = True

    signal.signal(signal.SIGINT, set_the_flag)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, former)
        if flag.is_set:
            former(signal.SIGINT, None)
