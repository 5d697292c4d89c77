"""Data files as text, with errors that name the file and line."""

from __future__ import annotations

from pathlib import Path

from edgetune.errors import DataError


def check_file(path: Path) -> None:
    """Raise DataError when `path` is missing, cannot be read, or is empty."""
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise DataError(
            "there is no such data file",
            where=path,
            remedy="a recipe's paths are relative to its folder, those of -s to the folder that the command runs in",
        ) from None
    except OSError as problem:
        raise DataError(f"cannot be read ({problem.strerror})", where=path) from None
    if empty:
        raise DataError("this file is empty", where=path)


def read_text(path: Path) -> str:
    """The whole file, which must be UTF-8; a byte order mark is dropped. Raises DataError naming the line."""
    check_file(path)
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise DataError(
            f"is not UTF-8 (byte 0x{content[problem.start]:02x})",
            where=f"{path}:{line}",
            remedy="save the file as UTF-8",
        ) from None
