"""Pairs of texts that are nearly the same: at least four fifths of all their pairs of neighbouring words are common.

The search is exact and uses no random hashes. Two sets with a Jaccard similarity of at least t share at least t of the
larger set's members. So they share one of the rarest members of each, and only such sets are compared (prefix
filtering, https://doi.org/10.1145/1242572.1242591).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

THRESHOLD = Fraction(4, 5)
"""The minimum Jaccard similarity of near-duplicates. One of 20 words may differ."""

_CHARACTER = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_CHARACTER}]|[^\s{_CHARACTER}]+")
"""A run of non-spaces; in scripts without spaces (Chinese, Japanese), each character."""

_WORDS = 2**32
"""More than the words of any data: a pair of words is one number, first · _WORDS + second."""


@dataclass(frozen=True)
class NearDuplicate:
    """The places of a known and a new text, and their Jaccard similarity."""

    known: int
    new: int
    similarity: float


def find_near_duplicates(known: Sequence[str], new: Sequence[str]) -> list[NearDuplicate]:
    """For each new text that is nearly the same as a known one, the first such known text; ordered by place in `new`.

    Normalize texts first. The sets of pairs of neighbouring words are compared, or the word of a text that has only
    one. Empty texts have no near-duplicates.
    """
    index = _Index(new)
    found: dict[int, NearDuplicate] = {}
    for number, text in enumerate(known):
        pairs = index.pairs(text)
        for place in index.candidates(pairs) - found.keys():
            similarity = _jaccard(pairs, index.texts[place])
            if similarity >= THRESHOLD:
                found[place] = NearDuplicate(number, place, float(similarity))
    return [found[place] for place in sorted(found)]


def group_near_duplicates(texts: Sequence[str]) -> list[int]:
    """For each text, the place of the first text of its group of near-duplicates, also of those linked by others.

    Texts are compared as in `find_near_duplicates`. Memory grows with all texts; there it grows only with the new ones.
    """
    index = _Index(texts)
    first = list(range(len(texts)))

    def root(place: int) -> int:
        while first[place] != place:
            first[place] = place = first[first[place]]
        return place

    for number, pairs in enumerate(index.texts):
        for place in index.candidates(pairs):
            one, other = sorted((root(place), root(number)))
            if place < number and one != other and _jaccard(pairs, index.texts[place]) >= THRESHOLD:
                first[other] = one
    return [root(place) for place in range(len(texts))]


class _Index:
    """Finds the candidates for near-duplicates of a set of word pairs, by their rarest pairs."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._words: dict[str, int] = {}
        self.texts = [self.pairs(text) for text in texts]
        self._frequency = Counter(pair for pairs in self.texts for pair in pairs)
        self._places: dict[int, list[int]] = {}
        for place, pairs in enumerate(self.texts):
            for pair in self._rarest(pairs):
                self._places.setdefault(pair, []).append(place)

    def pairs(self, text: str) -> frozenset[int]:
        """The pairs of neighbouring words of a text, as numbers."""
        words = [self._words.setdefault(word, len(self._words)) for word in _WORD.findall(text)]
        if len(words) == 1:
            return frozenset(words)
        return frozenset((first + 1) * _WORDS + second for first, second in pairwise(words))

    def candidates(self, pairs: frozenset[int]) -> set[int]:
        """Places of all near-duplicates of `pairs`, and of some other texts."""
        return {place for pair in self._rarest(pairs) for place in self._places.get(pair, ())}

    def _rarest(self, pairs: frozenset[int]) -> list[int]:
        """The smallest set of these pairs of which every near-duplicate has at least one."""
        known = [pair for pair in pairs if pair in self._frequency]
        needed = math.ceil(THRESHOLD * len(pairs))
        if not known or len(known) < needed:
            return []
        return sorted(known, key=lambda pair: (self._frequency[pair], pair))[: len(known) - needed + 1]


def _jaccard(one: frozenset[int], other: frozenset[int]) -> Fraction:
    shared = len(one & other)
    return Fraction(shared, len(one) + len(other) - shared)
