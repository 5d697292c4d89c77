"""stdout and stderr of a command, so that no terminal, pipe or disk behind them ends it with a traceback.

- A character that the stream's encoding does not have is written as its number: \\u2026, \\U0001f600.
- Results that stdout refuses (a full disk) end the command in one line: OutputError. A reader that has left (`| head`)
  ends it without one.
- Notes that stderr refuses are dropped, and the work goes on: hours of training do not end because of a progress bar.
- A stream that was closed before the command began (`>&-`) is one to the null device. Otherwise the next file that is
  opened would get its number, and native code that prints would write into it.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from edgetune.errors import OutputError

READER_LEFT = 1
"""The exit code where nobody reads stdout any more, as Rich and Click have it."""


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Inside the block, sys.stdout and sys.stderr are as this module says, and sys.stdin is never None."""
    _open_what_is_closed()
    stdout, stderr = sys.stdout, sys.stderr
    for stream in (stdout, stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = cast(TextIO, _Results(stdout)), cast(TextIO, _Stream(stderr))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr


class _Stream:
    """A stream that drops what it is refused, as stderr does; all but writing is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as problem:
            self._refused(problem)
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as problem:
            self._refused(problem)

    def _refused(self, problem: OSError) -> None:
        """What is still in the buffers goes to the null device, or the interpreter would fail on it at its end."""
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


class _Results(_Stream):
    """stdout. What it has refused once, it refuses ever after."""

    _refusal: OSError | None = None

    def write(self, text: str) -> int:
        if self._refusal is not None:
            self._refused(self._refusal)
        return super().write(text)

    def _refused(self, problem: OSError) -> None:
        if self._refusal is None:
            self._refusal = problem
            super()._refused(problem)
        if problem.errno == errno.EPIPE:
            raise SystemExit(READER_LEFT) from None
        raise OutputError(
            f"cannot be written ({problem.strerror})",
            where="standard output",
            remedy="free some space, or send it elsewhere",
        ) from problem


def _open_what_is_closed() -> None:
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number, which is this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
