"""What commands print: results on stdout, errors on stderr. Progress and notes are `events`, which `display` shows.

Only `cli/` imports this; every other module returns values.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import islice
from typing import Any

from rich.console import RenderableType

from edgetune.display import SafeConsole, is_first_process, stderr
from edgetune.errors import EdgetuneError
from edgetune.visible_text import visible, visible_json

_PARTS_AT_ONCE = 100_000
"""Pieces of a JSON document that are written together: about a megabyte."""

_out = SafeConsole()
_mode = {"json": False}


def configure(*, json_mode: bool) -> None:
    """Choose between output for people and one JSON document on stdout."""
    _mode["json"] = json_mode


def result(renderable: RenderableType) -> None:
    """Print what the command was called for. In JSON mode this is silent: `document` speaks instead."""
    if is_first_process() and not _mode["json"]:
        _out.print(renderable)


def width() -> int:
    """Characters in a line of stdout."""
    return _out.width


def verbatim(text: str, end: str = "\n") -> None:
    """Write model output or a file's text to stdout: no wrapping, flushed at once.

    A file or a pipe gets it as it is, for a program to read. A terminal gets no control characters.
    """
    if is_first_process() and not _mode["json"]:
        sys.stdout.write((visible(text) if sys.stdout.isatty() else text) + end)
        sys.stdout.flush()


def document(value: Any) -> None:
    """In JSON mode, print `value` as the one document on stdout, in ASCII where the stream is not Unicode."""
    if is_first_process() and _mode["json"]:
        unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
        # Piece by piece: the whole text of a large report would take ten times the memory of its values.
        parts = json.JSONEncoder(indent=2, ensure_ascii=not unicode, default=str).iterencode(value)
        while text := "".join(islice(parts, _PARTS_AT_ONCE)):
            sys.stdout.write(visible_json(text))
        sys.stdout.write("\n")
        sys.stdout.flush()


def error(problem: EdgetuneError) -> None:
    """Print the one line (what, where, the way out) that a failed command ends with."""
    speaker = "" if is_first_process() else f"process {os.environ['RANK']}: "
    stderr.print(f"{speaker}error: {problem}", style="bold red" if stderr.is_terminal else None)
