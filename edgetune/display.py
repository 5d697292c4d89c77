"""Events shown to people: bars on a terminal and in a notebook, plain lines elsewhere, all on stderr.

Text that was read somewhere (a file's metadata, a path, a model's answer) is never obeyed: control characters in it are
made visible, and what looks like Rich's markup is text. Of several processes that train together only the first shows
anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from threading import RLock
from typing import Any

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Span, Text

from edgetune import events
from edgetune.visible_text import visible

LINE_INTERVAL_SECONDS = 10.0
"""Without a terminal, progress is a plain line at most this often."""

_NOTEBOOK_INTERVAL_SECONDS = 0.25
"""A notebook draws its bars at most this often."""


def show_progress(shown: bool = True) -> None:
    """Show progress, notes and warnings of all later calls, as the command line does. `False` ends it.

    In a notebook and in IPython this is on from the start.
    """
    (events.subscribe if shown else events.unsubscribe)(show)


def is_first_process() -> bool:
    """True in the process that shows things; others only train with it."""
    return os.environ.get("RANK", "0") == "0"


class SafeConsole(Console):
    """Rich's console for text from elsewhere: no markup, no emoji codes, nothing that steers the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(soft_wrap=True, highlight=False, markup=False, emoji=False, **options)

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


class _Display:
    """Shows events, from whichever thread, on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = RLock()
        self._bars: _Bars | None = None
        self._lines: dict[int, float] = {}
        """Seconds of each work under way when its last line was printed."""

    def __call__(self, event: events.Event) -> None:
        if not is_first_process():
            return
        with self._lock:
            if isinstance(event, events.Notice):
                self._show_message(event)
            elif self._draws():
                self._bars = self._bars or _Bars(self._console)
                if not self._bars.show(event):
                    self._bars = None
            else:
                self._show_line(event)

    def _draws(self) -> bool:
        return self._console.is_terminal or self._console.is_jupyter

    def _show_message(self, message: events.Notice) -> None:
        prefix, style = ("warning: ", "yellow") if message.level == "warning" else ("", "dim")
        self._console.print(prefix + message.text, style=style if self._draws() else None)

    def _show_line(self, work: events.Progress) -> None:
        last = self._lines.setdefault(work.id, 0.0)
        if work.state == "done" or (work.state == "running" and work.seconds - last >= LINE_INTERVAL_SECONDS):
            self._lines[work.id] = work.seconds
            left = ""
            if 0 < work.done < work.total:
                left = f", {work.seconds / work.done * (work.total - work.done):.0f} s left"
            text = f", {work.text}" if work.text else ""
            done = f"{_count(work.done)}/{_count(work.total)} {work.unit}"
            self._console.print(f"{work.description}: {done}, {_rate(work)}{left}{text}")
        if work.state != "running":
            del self._lines[work.id]


class _Bars:
    """The bars of all work that is under way at the same time."""

    def __init__(self, console: Console) -> None:
        self._tasks: dict[int, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
        )
        self._notebook = _NotebookCell(self._progress) if console.is_jupyter else None
        if self._notebook is None:
            self._progress.start()

    def show(self, work: events.Progress) -> bool:
        """Draw an event. False once all work has ended."""
        if work.id not in self._tasks:
            self._tasks[work.id] = self._progress.add_task(
                visible(work.description), total=work.total, rate="", text=""
            )
        rate = _rate(work) if work.done else ""
        self._progress.update(self._tasks[work.id], completed=work.done, rate=rate, text=visible(work.text))
        if work.state != "running":
            self._progress.stop_task(self._tasks.pop(work.id))
        if self._notebook is not None:
            self._notebook.draw(last=not self._tasks)
        elif not self._tasks:
            self._progress.stop()
        return bool(self._tasks)


class _NotebookCell:
    """Bars in a cell's output, drawn by IPython alone: Rich's own way needs ipywidgets."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._handle, self._drawn = progress, None, 0.0

    def draw(self, *, last: bool) -> None:
        from IPython.display import display

        now = time.monotonic()
        if not last and now - self._drawn < _NOTEBOOK_INTERVAL_SECONDS:
            return
        self._drawn = now
        table = self._progress.make_tasks_table(self._progress.tasks)
        if self._handle is None:
            self._handle = display(table, display_id=True)
        else:
            self._handle.update(table)


def _count(amount: float) -> str:
    return f"{amount:,.0f}" if amount == int(amount) else f"{amount:,g}"


def _rate(work: events.Progress) -> str:
    per_second = work.done / max(work.seconds, 1e-9)
    singular = work.unit.removesuffix("s")
    if per_second >= 1 or work.done == 0:
        return f"{per_second:,.1f} {work.unit}/s"
    return f"{1 / per_second:.1f} s/{singular}"


stderr = SafeConsole(stderr=True)
show = _Display(stderr)
"""The listener that shows events on stderr."""
