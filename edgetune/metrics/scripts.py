"""Which characters belong to a word, in scripts that part words by spaces and in those that do not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x3005, 0x3007),  # the repetition mark and the zero of Han
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x3100, 0x312F),  # Bopomofo
    (0x31F0, 0x31FF),  # Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA980, 0xA9DF),  # Javanese
    (0xA9E0, 0xA9FF),  # Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),  # Han
    (0xFF66, 0xFF9D),  # Katakana of half width
    (0x1B000, 0x1B16F),  # Hiragana, Katakana
    (0x20000, 0x323AF),  # Han
)
"""Blocks of the scripts that write words without a space between them (https://www.unicode.org/reports/tr29/)."""

_MARKS_UP_TO = 0x1F000
_MORE_MARKS = (0xE0100, 0xE01F0)
_FORMAT = ((0xAD, 0x2100), (0xFE00, 0xFFFF), (0x11000, 0x1E000), (0xE0000, 0xE0080))
"""Where Unicode has characters of no width."""


def is_unspaced(character: str) -> bool:
    """True for a letter of a script that writes no spaces between words."""
    code = ord(character)
    return code >= 0xE00 and any(first <= code <= last for first, last in _UNSPACED) and character.isalpha()


def is_mark(character: str) -> bool:
    """True for a combining mark: it belongs to the letter before it."""
    return unicodedata.category(character).startswith("M")


@cache
def unspaced_class() -> str:
    """The inside of a regular expression's [...] for the letters that `is_unspaced` names."""
    return _ranges(code for first, last in _UNSPACED for code in range(first, last + 1) if chr(code).isalpha())


@cache
def mark_class() -> str:
    """The same for combining marks, which Python's \\w leaves out."""
    codes = (*range(0x300, _MARKS_UP_TO), *range(*_MORE_MARKS))
    return _ranges(code for code in codes if is_mark(chr(code)))


def without_format(text: str) -> str:
    """The text without characters of no width (joiners, soft hyphens, directions); U+200B, which parts words, is a
    space."""
    return text if text.isascii() else text.translate(_format_table())


@cache
def _format_table() -> dict[int, str | None]:
    codes = (code for first, last in _FORMAT for code in range(first, last))
    table: dict[int, str | None] = {code: None for code in codes if unicodedata.category(chr(code)) == "Cf"}
    return {**table, 0x200B: " "}


def _ranges(codes: Iterable[int]) -> str:
    return "".join(
        re.escape(chr(first)) + (f"-{re.escape(chr(last))}" if last > first else "") for first, last in _runs(codes)
    )


def _runs(codes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of successive numbers."""
    first = last = -2
    for code in codes:
        if code > last + 1:
            if last >= 0:
                yield first, last
            first = code
        last = code
    if last >= 0:
        yield first, last
