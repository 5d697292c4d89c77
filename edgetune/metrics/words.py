"""Texts of any language -> the words that metrics compare."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from edgetune.metrics.scripts import is_mark, mark_class, unspaced_class, without_format

UNSPACED = "each letter by itself where a script has no spaces between words (Han, Kana, Thai, Lao, Khmer, Myanmar)"
"""For people, with what else `split_words` and `token_f1` do."""


def split_words(text: str) -> list[str]:
    """The words of a text in small letters: runs of letters, digits and their marks in Unicode, NFKC.

    What has no width is left out, and punctuation and symbols part words, the underscore too. Letters of scripts that
    write no spaces are words by themselves, each with its marks.
    """
    return _word().findall(fold_case(text))


def split_unspaced(word: str) -> list[str]:
    """A word as it is, or in parts where it has letters of a script without spaces, which stand by themselves."""
    return [word] if word.isascii() else _unspaced_or_other().findall(word)


def fold_case(text: str) -> str:
    """The text in small letters, in the one form that Unicode has for each (NFKC), without what has no width."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", without_format(text)).casefold()
    return unicodedata.normalize("NFKC", folded)


def foreign_share(texts: Iterable[str]) -> float:
    """The share of letters and marks outside a to z, 0 without letters."""
    letters = foreign = 0
    for text in texts:
        if text.isascii():
            letters += sum(map(str.isalpha, text))
            continue
        for character in text:
            if character.isalpha() or is_mark(character):
                letters += 1
                foreign += not character.isascii()
    return foreign / letters if letters else 0.0


@cache
def _word() -> re.Pattern[str]:
    unspaced, marks = unspaced_class(), mark_class()
    return re.compile(rf"[{unspaced}][{marks}]*|(?:(?![{unspaced}])[^\W_]|[{marks}])+")


@cache
def _unspaced_or_other() -> re.Pattern[str]:
    unspaced, marks = unspaced_class(), mark_class()
    return re.compile(rf"[{unspaced}][{marks}]*|[^{unspaced}]+")
