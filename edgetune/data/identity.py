"""When two texts count as the same, regardless of case, punctuation and spaces."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from edgetune.data.example import Example

Keyed = tuple[str, Example]
"""A row's normalized question, and the row."""


def keyed_rows(examples: Sequence[Example]) -> list[Keyed]:
    """Each row once, without the copies of weight and balance."""
    rows = {example.where: example for example in examples}
    return [(key_of(row), row) for row in rows.values()]


def key_of(example: Example) -> str:
    """An example's normalized question; examples with the same key ask the same. Empty if it asks nothing."""
    return normalize_text(example.content)


def normalize_text(text: str) -> str:
    """Lower case in Unicode's compatibility form (NFKC), punctuation as spaces, one space between words.

    Symbols such as emoji stay, and so does punctuation if the text contains nothing else.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = folded.translate(_punctuation()).split()
    return " ".join(words or folded.split())


@lru_cache(maxsize=1)
def _punctuation() -> dict[int, str]:
    """A space for every character of Unicode's categories P."""
    return {code: " " for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P")}
