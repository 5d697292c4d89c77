"""Reads data files as text; errors name the file and line."""

from __future__ import annotations

import codecs
from pathlib import Path

from edgetune.errors import DataError

_NO_TEXT = {
    b"PK\x03\x04": "a spreadsheet or a zip file",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"\x1f\x8b": "a gzip file",
}
"""First bytes of files that sometimes have the name of a text file."""
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BEGINNING_BYTES = 1000
"""Bytes that are searched for zeros, which UTF-16 has in every ordinary letter."""


def check_file(path: Path) -> None:
    """Raise DataError if `path` is missing, cannot be read, or is empty."""
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise DataError(
            "there is no such data file",
            where=path,
            remedy="paths in a recipe are relative to its folder, paths in -s to the working folder",
        ) from None
    except OSError as problem:
        raise DataError(f"cannot be read ({problem.strerror})", where=path) from None
    if empty:
        raise DataError("this file is empty", where=path)


def read_text(path: Path) -> str:
    """The whole file, which must be UTF-8; a byte order mark is dropped. Raises DataError naming the line."""
    check_file(path)
    content = path.read_bytes()
    for beginning, kind in _NO_TEXT.items():
        if content.startswith(beginning):
            raise DataError(
                f"is not text but {kind}",
                where=path,
                remedy="unpack it, or save the sheet as CSV UTF-8 in its program (File, Save As)",
            )
    if content.startswith(_UTF_16) or b"\0" in content[:_BEGINNING_BYTES]:
        raise _not_utf_8("it looks like UTF-16", "UTF-16", path, line=1)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        seen = f"byte 0x{content[problem.start]:02x}"
        raise _not_utf_8(f"{seen}; it looks like {_guess(content)[0]}", _guess(content)[1], path, line) from None


def _guess(content: bytes) -> tuple[str, str]:
    """The probable encoding of an 8-bit file, in words and by iconv's name."""
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return "an older 8-bit encoding", "ISO-8859-1"
    return "Windows-1252, which Excel's plain CSV is", "WINDOWS-1252"


def _not_utf_8(seen: str, encoding: str, path: Path, line: int) -> DataError:
    return DataError(
        f"is not UTF-8 ({seen})",
        where=f"{path}:{line}",
        remedy=f"save the file as UTF-8: in Excel, File, Save As, CSV UTF-8; elsewhere, iconv -f {encoding} -t UTF-8 "
        f"{path.name} > new-{path.name}",
    )
