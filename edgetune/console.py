"""The only printer: results go to stdout, progress and notes to stderr. Every other module logs or returns values.

Of several processes that train together the first one alone speaks, except for errors.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgetune.errors import EdgetuneError

LINE_INTERVAL_SECONDS = 10.0
"""Without a terminal, progress is a plain line at most this often."""

_out = Console(soft_wrap=True, highlight=False)
_err = Console(stderr=True, soft_wrap=True, highlight=False)
_mode = {"json": False}


def _speaks() -> bool:
    return os.environ.get("RANK", "0") == "0"


def configure(*, json_mode: bool) -> None:
    """Choose between output for people and one JSON document on stdout."""
    _mode["json"] = json_mode


def result(renderable: RenderableType) -> None:
    """Print what the command was called for. In JSON mode this is silent: `document` speaks instead."""
    if _speaks() and not _mode["json"]:
        _out.print(renderable)


def width() -> int:
    """Characters in a line of stdout."""
    return _out.width


def verbatim(text: str, end: str = "\n") -> None:
    """Write model output or a file's text to stdout as it is: no markup, no wrapping, flushed at once."""
    if _speaks() and not _mode["json"]:
        sys.stdout.write(text + end)
        sys.stdout.flush()


def document(value: Any) -> None:
    """In JSON mode, print `value` as the one document on stdout."""
    if _speaks() and _mode["json"]:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()


def note(text: str) -> None:
    """Tell the user something beside the result."""
    if _speaks():
        _err.print(text, markup=False, style="dim" if _err.is_terminal else None)


def warn(text: str) -> None:
    """Tell the user something that may need them to act."""
    if _speaks():
        _err.print(f"warning: {text}", markup=False, style="yellow" if _err.is_terminal else None)


def error(problem: EdgetuneError) -> None:
    """Print the one line (what, where, the way out) that a failed command ends with."""
    speaker = "" if _speaks() else f"process {os.environ['RANK']}: "
    _err.print(f"{speaker}error: {problem}", markup=False, style="bold red" if _err.is_terminal else None)


class ProgressHandle(Protocol):
    """What long work reports to."""

    def advance(self, amount: float = 1, text: str = "") -> None:
        """Count `amount` more units as done; `text` is shown behind the bar (a loss, a file name)."""


class _Silent:
    def advance(self, amount: float = 1, text: str = "") -> None:
        pass


SILENT_PROGRESS: ProgressHandle = _Silent()
"""For work that is a part of work whose progress is shown already."""


@contextmanager
def progress(description: str, total: float, unit: str) -> Iterator[ProgressHandle]:
    """Show a bar with rate and time left on a terminal, plain lines elsewhere. `total` counts in `unit`s."""
    if _err.is_terminal and _speaks():
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=_err,
        ) as bar:
            yield _Bar(bar, description, total, unit)
    else:
        lines = _Lines(description, total, unit)
        yield lines
        lines.finish()


class _Bar:
    def __init__(self, bar: Progress, description: str, total: float, unit: str) -> None:
        self._bar, self._unit, self._started = bar, unit, time.monotonic()
        self._task = bar.add_task(description, total=total, rate="", text="")

    def advance(self, amount: float = 1, text: str = "") -> None:
        self._bar.advance(self._task, amount)
        done = self._bar.tasks[self._task].completed
        self._bar.update(self._task, rate=_rate(done, self._started, self._unit), text=text)


class _Lines:
    def __init__(self, description: str, total: float, unit: str) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._done, self._text, self._started, self._printed = 0.0, "", time.monotonic(), time.monotonic()

    def advance(self, amount: float = 1, text: str = "") -> None:
        self._done += amount
        self._text = text
        if time.monotonic() - self._printed >= LINE_INTERVAL_SECONDS:
            self._print()

    def finish(self) -> None:
        self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        rate = _rate(self._done, self._started, self._unit)
        left = ""
        if 0 < self._done < self._total:
            seconds = (time.monotonic() - self._started) / self._done * (self._total - self._done)
            left = f", {seconds:.0f} s left"
        text = f", {self._text}" if self._text else ""
        note(f"{self._description}: {self._done:g}/{self._total:g} {self._unit}, {rate}{left}{text}")


def _rate(done: float, started: float, unit: str) -> str:
    per_second = done / max(time.monotonic() - started, 1e-9)
    singular = unit.removesuffix("s")
    return f"{per_second:.1f} {unit}/s" if per_second >= 1 or done == 0 else f"{1 / per_second:.1f} s/{singular}"
