"""The only printer: results go to stdout, progress and notes to stderr. Every other module logs or returns values.

Text that was read somewhere (a file's metadata, a path, a model's answer) is never obeyed: control characters in it are
made visible, and what looks like Rich's markup is text. Of several processes that train together the first one alone
speaks, except for errors.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Span, Text

from edgetune.errors import EdgetuneError
from edgetune.visible_text import visible, visible_json

LINE_INTERVAL_SECONDS = 10.0
"""Without a terminal, progress is a plain line at most this often."""

_PARTS_AT_ONCE = 100_000
"""Pieces of a JSON document that are written together: about a megabyte."""


class _Console(Console):
    """Rich's console for text from elsewhere: no markup, no emoji codes, nothing that steers the terminal."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        _make_visible(renderable)
        return super().render(renderable, options)


def _make_visible(renderable: object) -> None:
    """Change the texts inside, before rich lays them out by their width. Plain strings come to `render_str`."""
    if isinstance(renderable, Text):
        _make_text_visible(renderable)
    elif isinstance(renderable, Group | Columns):
        for part in renderable.renderables:
            _make_visible(part)
    elif isinstance(renderable, Table):
        for column in renderable.columns:
            for cell in (column.header, *column.cells, column.footer):
                _make_visible(cell)


def _make_text_visible(text: Text) -> None:
    plain = text.plain
    shown = visible(plain)
    if shown == plain:
        return
    # One character may have become several: the styles move with them.
    moved = [(len(visible(plain[: span.start])), len(visible(plain[: span.end])), span.style) for span in text.spans]
    text.plain = shown
    text.spans = [Span(*span) for span in moved]


_out = _Console()
_err = _Console(stderr=True)
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
    """Write model output or a file's text to stdout: no wrapping, flushed at once.

    A file or a pipe gets it as it is, for a program to read. A terminal gets no control characters.
    """
    if _speaks() and not _mode["json"]:
        sys.stdout.write((visible(text) if sys.stdout.isatty() else text) + end)
        sys.stdout.flush()


def document(value: Any) -> None:
    """In JSON mode, print `value` as the one document on stdout, in ASCII where the stream is not Unicode."""
    if _speaks() and _mode["json"]:
        unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
        # Piece by piece: the whole text of a large report would take ten times the memory of its values.
        parts = json.JSONEncoder(indent=2, ensure_ascii=not unicode, default=str).iterencode(value)
        while text := "".join(islice(parts, _PARTS_AT_ONCE)):
            sys.stdout.write(visible_json(text))
        sys.stdout.write("\n")
        sys.stdout.flush()


def note(text: str) -> None:
    """Tell the user something beside the result."""
    if _speaks():
        _err.print(text, style="dim" if _err.is_terminal else None)


def warn(text: str) -> None:
    """Tell the user something that may need them to act."""
    if _speaks():
        _err.print(f"warning: {text}", style="yellow" if _err.is_terminal else None)


def error(problem: EdgetuneError) -> None:
    """Print the one line (what, where, the way out) that a failed command ends with."""
    speaker = "" if _speaks() else f"process {os.environ['RANK']}: "
    _err.print(f"{speaker}error: {problem}", style="bold red" if _err.is_terminal else None)


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
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
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
        note(f"{self._description}: {_count(self._done)}/{_count(self._total)} {self._unit}, {rate}{left}{text}")


def _count(amount: float) -> str:
    return f"{amount:,.0f}" if amount == int(amount) else f"{amount:,g}"


def _rate(done: float, started: float, unit: str) -> str:
    per_second = done / max(time.monotonic() - started, 1e-9)
    singular = unit.removesuffix("s")
    return f"{per_second:,.1f} {unit}/s" if per_second >= 1 or done == 0 else f"{1 / per_second:.1f} s/{singular}"
