"""Text from elsewhere as it may be shown: what would be invisible, or would turn the text around it, is made visible.

A terminal obeys control characters: a model's name could set the window's title, clear the screen or answer a question.
"""

from __future__ import annotations

import re

_PICTURED = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n\r"} | {0x7F: "␡"}
_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm (UAX #9)."""

_NAMED = (*_DIRECTIONS, *range(0x80, 0xA0), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF)
_MADE_VISIBLE = _PICTURED | {code: f"⟨U+{code:04X}⟩" for code in _NAMED}
_SURROGATE = re.compile("[\ud800-\udfff]")
_PASSED_OVER_BY_JSON = re.compile("[\x7f\ud800-\udfff" + "".join(map(chr, _NAMED)) + "]")
"""What JSON's own escapes leave as it is."""


def visible(text: str) -> str:
    """Text in which control characters are pictures (NUL is ␀) and characters that turn text around are named.

    It can be encoded: half a surrogate pair becomes its name, too. Line ends become \\n.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_MADE_VISIBLE)
    return _SURROGATE.sub(lambda half: f"⟨U+{ord(half[0]):04X}⟩", text)


def visible_json(document: str) -> str:
    """A JSON document of the same value in which these characters are written as \\u202e and the like."""
    return _PASSED_OVER_BY_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def shortened(text: str, characters: int) -> str:
    """Text of at most so many characters; where some are left out, an ellipsis stands for them."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"
