"""Pairs of texts that are nearly the same: at least four fifths of the neighbouring words of both are in both.

The search is exact, without hashing by chance. Two sets whose Jaccard similarity is at least t share t of the larger
one's members; so they share one of the few rarest of each, and only sets that do are compared (prefix filtering,
https://doi.org/10.1145/1242572.1242591).
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
    """For each text the place of the first of its group: texts that are nearly the same, or linked by such texts.

    They are compared as in `find_near_duplicates`. Memory grows with all of them, unlike there, where it does with the
    new ones only.
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
    """Finds the texts that may be near to a set of pairs of words, by their rarest pairs."""

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
        """Places of all texts that are near to `pairs`, and of some that are not."""
        return {place for pair in self._rarest(pairs) for place in self._places.get(pair, ())}

    def _rarest(self, pairs: frozenset[int]) -> list[int]:
        """The fewest of these pairs of which a near-duplicate among the texts must have one."""
        known = [pair for pair in pairs if pair in self._frequency]
        needed = math.ceil(THRESHOLD * len(pairs))
        if not known or len(known) < needed:
            return []
        return sorted(known, key=lambda pair: (self._frequency[pair], pair))[: len(known) - needed + 1]


def _jaccard(one: frozenset[int], other: frozenset[int]) -> Fraction:
    shared = len(one & other)
    return Fraction(shared, len(one) + len(other) - shared)
