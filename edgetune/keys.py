"""The keys of services: from the environment, else from the file .env in the working folder.

The file is read when a key is needed, and only that key is taken from it. Nothing of it is put into os.environ, so no
child process and no library that records its environment gets to see it. A variable that the environment has, even an
empty one, is not looked up in the file.
"""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path

from edgetune.errors import UsageError

ENV_FILE = Path(".env")
"""In the working folder. The folders above it are not searched."""

HUB_TOKEN = "HF_TOKEN"
SIGN_IN = f"run `hf auth login`, or set {HUB_TOKEN} in the environment or in {ENV_FILE} in this folder"
"""The way out where the hub wants to know who asks."""

LARGEST_FILE_BYTES = 1 << 20

_HUB_LOGINS = (HUB_TOKEN, "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE")
"""The environment variables that huggingface_hub gets its token from."""


def find_key(variable: str) -> str | None:
    """The key in the environment variable `variable`, else that in .env; None where there is none.

    An empty value is no key. Raises UsageError for a key that cannot be sent, and for a .env that cannot be read.
    """
    if variable in os.environ:
        return _usable(os.environ[variable], variable, where="the environment")
    return _usable(_read_env_file(variable).get(variable), variable, where=str(ENV_FILE))


def find_hub_token() -> str | None:
    """The Hugging Face token in .env, for the argument `token` of huggingface_hub and datasets.

    None where huggingface_hub looks for one itself: the environment has one, or .env has none and what `hf auth login`
    has stored is next. None, too, where no token may be sent: offline, or with HF_HUB_DISABLE_IMPLICIT_TOKEN. Raises
    UsageError as `find_key` does.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    if any(name in os.environ for name in _HUB_LOGINS):
        return None
    return find_key(HUB_TOKEN)


def _usable(value: str | None, variable: str, *, where: str) -> str | None:
    key = (value or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(
            f"{variable} holds characters that no key has",
            where=where,
            remedy="set it again, without spaces, quotes and line breaks",
        )
    return key or None


def _read_env_file(variable: str) -> dict[str, str | None]:
    """The values in .env by their names. `$` is a plain character in them: nothing is interpolated.

    `variable` is what the file is read for, which errors name. No error shows a part of the file.
    """
    from dotenv.parser import parse_stream

    values: dict[str, str | None] = {}
    for binding in parse_stream(io.StringIO(_read_text(variable))):
        if binding.error:
            line = binding.original.line + _leading_line_ends(binding.original.string)
            what = "this line is not NAME=VALUE, or its quote is not closed (it is not shown, as it may hold a key)"
            raise _unreadable(what, "correct it", variable, line=line)
        if binding.key is not None:
            values[binding.key] = binding.value
    return values


def _read_text(variable: str) -> str:
    """The text of .env; empty where there is none, or a folder (a virtual environment) of that name."""
    try:
        kind = ENV_FILE.stat().st_mode
        if stat.S_ISDIR(kind):
            return ""
        if stat.S_ISFIFO(kind):  # to open it would wait for whoever writes into it
            raise _unreadable("is a named pipe", "make it a file", variable)
        with ENV_FILE.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as problem:
        raise _unreadable(f"cannot be read ({problem.strerror})", "make it readable", variable) from None
    if len(content) > LARGEST_FILE_BYTES:
        raise _unreadable("is larger than 1 MiB, and a .env is a few lines", "shorten it", variable)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
    raise _unreadable("is not UTF-8 text", "save it as UTF-8", variable, line=line)


def _unreadable(what: str, remedy: str, variable: str, *, line: int | None = None) -> UsageError:
    where = str(ENV_FILE) if line is None else f"{ENV_FILE}:{line}"
    return UsageError(what, where=where, remedy=f"{remedy}, or set {variable} in the environment, and .env is not read")


def _leading_line_ends(statement: str) -> int:
    """How many lines of a statement, as the parser cuts it, are the blank ones before it."""
    return len(re.findall(r"\r\n|\n|\r", statement[: len(statement) - len(statement.lstrip())]))
