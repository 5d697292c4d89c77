"""When two texts count as the same, whatever their case, punctuation and spaces."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from edgetune.data.example import Example

Keyed = tuple[str, Example]
"""A row with its key: what it asks, normalized."""


def keyed_rows(examples: Sequence[Example]) -> list[Keyed]:
    """Each row once, without the copies that weight and balance make of it."""
    rows = {example.where: example for example in examples}
    return [(key_of(row), row) for row in rows.values()]


def key_of(example: Example) -> str:
    """What an example asks, normalized: examples with the same key ask the same. Empty when it asks nothing."""
    return normalize_text(example.content)


def normalize_text(text: str) -> str:
    """Unicode's compatibility form (NFKC) in lower case, punctuation as spaces, one space between words.

    Symbols such as emoji stay, because they carry meaning; so does punctuation where there is nothing else.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = folded.translate(_punctuation()).split()
    return " ".join(words or folded.split())


@lru_cache(maxsize=1)
def _punctuation() -> dict[int, str]:
    """A space for every character of Unicode's categories P."""
    return {code: " " for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P")}
