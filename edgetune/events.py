"""Progress, notes and warnings as values: the library reports them here, and whoever listens shows them.

    with edgetune.events.listen(print):
        edgetune.export("runs/demo", out="demo.gguf")

The command line and notebooks listen (`display`). Otherwise nothing is printed. Notes and warnings also go to the
logger "edgetune", whose level and handlers are the program's own.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

_logger = logging.getLogger("edgetune")
_logger.addHandler(logging.NullHandler())  # without any handler, logging prints warnings to stderr

_LEVELS = {"note": logging.INFO, "warning": logging.WARNING}


@dataclass(frozen=True)
class Notice:
    """One line for the user. A warning may need them to act; a note does not."""

    level: Literal["note", "warning"]
    text: str


@dataclass(frozen=True)
class Progress:
    """How far one piece of work is: `done` of `total` in `unit`s, `seconds` after its start.

    A piece of work has one `id` in all its events: one when it starts, one for each advance, and one when it ends.
    """

    id: int
    description: str
    done: float
    total: float
    unit: str
    text: str
    """More about the last advance, such as a loss or a file's name."""
    seconds: float
    state: Literal["running", "done", "stopped"]


Event = Notice | Progress
Listener = Callable[[Event], None]

_listeners: list[Listener] = []


def subscribe(listener: Listener) -> None:
    """Call `listener` with each event of this process from now on, in the thread that reports it.

    An exception that it raises ends the work that reported. A second call with the same listener changes nothing.
    """
    if listener not in _listeners:
        _listeners.append(listener)


def unsubscribe(listener: Listener) -> None:
    """Undo `subscribe`."""
    if listener in _listeners:
        _listeners.remove(listener)


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """`subscribe` for the time of a with block, unless it is subscribed already."""
    if listener in _listeners:
        yield
        return
    subscribe(listener)
    try:
        yield
    finally:
        unsubscribe(listener)


def note(text: str) -> None:
    """Tell the user something beside the result."""
    _report(Notice("note", text))


def warn(text: str) -> None:
    """Tell the user something that may need them to act."""
    _report(Notice("warning", text))


class ProgressHandle:
    """What long work advances. This one reports nothing."""

    def advance(self, amount: float = 1, text: str = "") -> None:
        """Count `amount` more units as done; `text` says more about them (a loss, a file name)."""


SILENT_PROGRESS = ProgressHandle()
"""For work that is a part of work whose progress is reported already."""


@contextmanager
def progress(description: str, total: float, unit: str) -> Iterator[ProgressHandle]:
    """Report how far the work in the with block is. `total` counts in `unit`s."""
    work = _Work(description, total, unit)
    work.report("running")
    try:
        yield work
    except BaseException:
        work.report("stopped")
        raise
    work.report("done")


class _Work(ProgressHandle):
    _ids = itertools.count()

    def __init__(self, description: str, total: float, unit: str) -> None:
        self._id, self._description, self._total, self._unit = next(self._ids), description, total, unit
        self._done, self._text, self._started = 0.0, "", time.monotonic()

    def advance(self, amount: float = 1, text: str = "") -> None:
        self._done += amount
        self._text = text
        self.report("running")

    def report(self, state: Literal["running", "done", "stopped"]) -> None:
        seconds = time.monotonic() - self._started
        done = (self._description, self._done, self._total, self._unit, self._text)
        _report(Progress(self._id, *done, seconds, state))


def _report(event: Event) -> None:
    if isinstance(event, Notice):
        _logger.log(_LEVELS[event.level], event.text)
    for listener in tuple(_listeners):  # a listener may unsubscribe itself
        listener(event)
