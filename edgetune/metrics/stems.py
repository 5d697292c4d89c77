"""The words of rouge-score, stemmed once each: texts repeat their words, and the stemmer takes most of ROUGE's time."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any


class StemmedWords:
    """rouge-score's tokenizer with its stemmer, as `RougeScorer(tokenizer=...)` takes it: the same words, sooner."""

    def tokenize(self, text: str) -> list[str]:
        """The words that are compared."""
        from rouge_score.tokenize import tokenize

        words: list[str] = tokenize(text, self)
        return words

    def stem(self, word: str) -> str:
        """What Porter's algorithm leaves of a word."""
        return _stem(word)


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return str(_porter().stem(word))


@cache
def _porter() -> Any:
    from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

    return PorterStemmer()
