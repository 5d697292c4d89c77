"""edgetune's exceptions, and the exit code of a command for each.

EdgetuneError
├── InputError (2)              invalid input
│   ├── UsageError              invalid options or arguments
│   ├── RecipeError             a recipe or suite: unknown key, wrong type, impossible combination
│   ├── DataError               a data file, a row, a column, a label
│   ├── ModelError              a base model or GGUF that is missing, truncated or of an unsupported kind
│   ├── AdapterError            an adapter that is missing or was made for another base
│   └── OutputError             an output that already exists, or a path that cannot be written
├── NumericalError (2)          a result that is not finite; it is neither written nor judged
├── OutOfMemory (2)             not enough memory on the GPU or the machine
├── ProcessFailed (2)           a training process that crashed or failed unexpectedly
├── VerificationFailed (1)      a written file that fails a check
├── MissingComponent (5)        an optional dependency that is not installed
└── Interrupted (130)           stopped by the user; what was finished is kept

A message says what is wrong, where, and the way out: `runs/x/recipe.yaml: method.rank is 0; it must be at least 1`.
A missed gate is not an error but a verdict, which `judge` returns as its exit code (0, 1 or 3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_OPTION = re.compile(
    r"\bedgetune [a-z].*|(?<![\w-])--((?:no-)?([a-z][a-z0-9-]*))(?: ([A-Z]+\b|\d+\b|[^\s:]+(?=: )))?", re.DOTALL
)
"""An option in a text, its name without `no-`, and its value. A command of edgetune's stays as it is, to be copied."""


class EdgetuneError(Exception):
    """An error with what went wrong, where, and the remedy, in one line."""

    exit_code = 2
    parameters: Mapping[str, object] = {}
    """Of the Python function that raises it, with their defaults: an option in the text is written as its parameter
    (`--force` as `force=True`). Without any, options stay as the command line has them."""

    def __init__(self, what: str, *, where: str | Path | None = None, remedy: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        return _OPTION.sub(self._as_parameter, text if self.remedy is None else f"{text}; {self.remedy}")

    def _as_parameter(self, option: re.Match[str]) -> str:
        name = (option[2] or "").replace("-", "_")
        if name not in self.parameters:
            return option[0]
        default = self.parameters[name]
        value = not default if isinstance(default, bool) else option[3]
        return name if value is None else f"{name}={value}"


class InputError(EdgetuneError):
    """Invalid input."""


class UsageError(InputError):
    """Invalid options or arguments."""


class RecipeError(InputError):
    """A recipe or suite with an unknown key, a wrong type or an impossible combination."""


class DataError(InputError):
    """A data file, row, column or label that cannot be used."""


class ModelError(InputError):
    """A base model or GGUF that is missing, truncated or of an unsupported kind."""


class AdapterError(InputError):
    """An adapter that is missing, damaged, or was made for another base."""


class OutputError(InputError):
    """An output that already exists, or a path that cannot be written."""


class NumericalError(EdgetuneError):
    """A result that is not finite; it is neither written nor judged."""


class OutOfMemory(EdgetuneError):
    """Not enough memory on the GPU or the machine; the remedy says how to reduce the need."""


class ProcessFailed(EdgetuneError):
    """One of several training processes crashed or failed unexpectedly."""


class VerificationFailed(EdgetuneError):
    """A written file that fails a check."""

    exit_code = 1


class MissingComponent(EdgetuneError):
    """An optional dependency that is not installed; the remedy contains the install command."""

    exit_code = 5


class Interrupted(EdgetuneError):
    """Stopped by the user. What was finished is kept, and the message says where."""

    exit_code = 130


def first_line_of(problem: BaseException) -> str:
    """The first line of another library's message."""
    return str(problem).strip().partition("\n")[0] or type(problem).__name__
