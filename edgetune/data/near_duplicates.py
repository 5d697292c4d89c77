"""Pairs of texts that are nearly the same: at least four fifths of the neighbouring words of both are in both.

The search is exact, without hashing by chance. Two sets whose Jaccard similarity is at least t share t of the larger
one's members; so they share one of the few rarest of each, and only sets that do are compared (prefix filtering,
https://doi.org/10.1145/1242572.1242591).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

THRESHOLD = Fraction(4, 5)
"""The Jaccard similarity from which on two texts are near-duplicates. One of 20 words may be another."""

_CHARACTER = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_CHARACTER}]|[^\s{_CHARACTER}]+")
"""What stands between spaces; of scripts that write none (Chinese, Japanese), each character."""

_WORDS = 2**32
"""More words than any data has: a pair of words is one number, first · _WORDS + second."""


@dataclass(frozen=True)
class NearDuplicate:
    """Places of a text among the known ones and of one among the new, and the Jaccard similarity of their pairs."""

    known: int
    new: int
    similarity: float


def find_near_duplicates(known: Sequence[str], new: Sequence[str]) -> list[NearDuplicate]:
    """For each new text that is nearly a known one, the first such known text; by place in `new`.

    Texts are compared as they are; normalize them first. What is compared are the sets of pairs of neighbouring words,
    or the word where a text has only one. Empty texts are near to nothing.
    """
    words: dict[str, int] = {}
    asked = [_pairs(text, words) for text in new]
    frequency = Counter(pair for pairs in asked for pair in pairs)
    waiting: dict[int, list[int]] = {}
    for place, pairs in enumerate(asked):
        for pair in _rarest(pairs, len(pairs), frequency):
            waiting.setdefault(pair, []).append(place)
    found: dict[int, NearDuplicate] = {}
    for number, text in enumerate(known):
        pairs = _pairs(text, words)
        shared = [pair for pair in pairs if pair in frequency]
        candidates = {place for pair in _rarest(shared, len(pairs), frequency) for place in waiting.get(pair, ())}
        for place in candidates - found.keys():
            similarity = _jaccard(pairs, asked[place])
            if similarity >= THRESHOLD:
                found[place] = NearDuplicate(number, place, float(similarity))
    return [found[place] for place in sorted(found)]


def _pairs(text: str, words: dict[str, int]) -> frozenset[int]:
    """The pairs of neighbouring words as numbers; `words` numbers the words, and learns those that it does not know."""
    numbers = [words.setdefault(word, len(words)) for word in _WORD.findall(text)]
    return frozenset(numbers if len(numbers) == 1 else _numbered(numbers))


def _numbered(numbers: Sequence[int]) -> Iterator[int]:
    return ((first + 1) * _WORDS + second for first, second in pairwise(numbers))


def _rarest(pairs: Sequence[int] | frozenset[int], size: int, frequency: Counter[int]) -> list[int]:
    """Those of `pairs`, out of `size` that a text has, of which a near-duplicate must have at least one."""
    needed = math.ceil(THRESHOLD * size)
    if not pairs or len(pairs) < needed:
        return []
    return sorted(pairs, key=lambda pair: (frequency[pair], pair))[: len(pairs) - needed + 1]


def _jaccard(one: frozenset[int], other: frozenset[int]) -> Fraction:
    shared = len(one & other)
    return Fraction(shared, len(one) + len(other) - shared)
