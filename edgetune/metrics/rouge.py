"""How close written summaries come to their references: ROUGE, https://aclanthology.org/W04-1013."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import fmean
from typing import Literal, get_args

from edgetune.metrics.words import UNSPACED, foreign_share, split_words

RougeName = Literal["rouge1", "rouge2", "rougeL", "rougeLsum"]

ROUGE_NAMES: tuple[RougeName, ...] = get_args(RougeName)

_MOST_FOREIGN = 0.01
"""The share of letters outside a to z up to which references are English. Summaries of papers (SciTLDR) have 0.0005 %,
German, Spanish and French texts about 2 to 4 %."""

_MOSTLY = 0.5
"""A text of a larger share of such letters is not English, whatever the references are."""


@dataclass(frozen=True)
class Rouge:
    """Mean F1 over all items, from 0 to 100, as papers give it.

    rouge1 and rouge2 compare words and pairs of words, rougeL the longest common subsequence of the whole texts, and
    rougeLsum that of their lines.
    """

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 - the name that everyone knows it by
    rougeLsum: float  # noqa: N815
    items: int


def measure_rouge(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rouge:
    """Measure each prediction against its references with rouge-score, English words stemmed.

    Of several references the best counts, for each of the four on its own. Raises ValueError without items, when the
    lists differ in length, or for an item without a reference.
    """
    scores = score_rouge(predictions, references, ROUGE_NAMES)
    return Rouge(**{name: fmean(scores[name]) for name in ROUGE_NAMES}, items=len(predictions))


def score_rouge(
    predictions: Sequence[str], references: Sequence[Sequence[str]], names: Sequence[RougeName]
) -> dict[RougeName, list[float]]:
    """F1 of each prediction, from 0 to 100, by the names that are asked for.

    The settings are those of `rouge_settings` for these references. Sentences of rougeLsum are lines, so texts must
    have each sentence on a line of its own to give the numbers that papers call ROUGE-Lsum; on texts of one line it is
    rougeL. Raises ValueError without items, when the lists differ in length, or for an item without a reference.
    """
    from rouge_score.rouge_scorer import RougeScorer

    if len(predictions) != len(references) or not predictions:
        raise ValueError(f"{len(predictions)} predictions and {len(references)} references cannot be compared")
    if not all(references):
        raise ValueError("an item has no reference")
    scorer = RougeScorer(list(names), tokenizer=_Words(english=is_english(references)))
    scores = [scorer.score_multi(texts, text) for text, texts in zip(predictions, references, strict=True)]
    return {name: [100 * float(score[name].fmeasure) for score in scores] for name in names}


def is_english(references: Sequence[Sequence[str]]) -> bool:
    """True where the references have so few letters outside a to z that rouge-score's own words read them all."""
    return foreign_share(text for texts in references for text in texts) <= _MOST_FOREIGN


def rouge_settings(references: Sequence[Sequence[str]]) -> dict[str, str]:
    """What a reader needs to get the same numbers: library, words, stemmer, sentences, several references."""
    if is_english(references):
        words = (
            "rouge-score's: lower case, runs of a-z and 0-9; a text of mostly other letters: runs of Unicode's letters"
        )
    else:
        words = f"case folded, runs of Unicode's letters, digits and marks (NFKC); {UNSPACED}"
    return {
        "library": f"rouge-score {version('rouge-score')}",
        "words": words,
        "stemmer": f"Porter's in nltk {version('nltk')}, for words of a-z and 0-9 with more than 3 characters",
        "sentences": "lines, split at \\n (rougeLsum); no sentence splitter",
        "references": "the best F1 of several, for each score by itself",
    }


def has_rouge_words(text: str) -> bool:
    """True when ROUGE can see anything in the text: a letter or a digit."""
    return bool(split_words(text))


class _Words:
    """rouge-score's tokenizer for English texts, and one that reads the words of every script for others.

    On texts of ASCII alone both find the same words. `english` goes by all references together, so that a few accents
    leave the figures of English data as everyone else's; a text that is mostly of other letters is read in full all
    the same, because rouge-score would see its digits alone.
    """

    def __init__(self, *, english: bool) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._english = english
        self._of_rouge_score = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """The words that are compared."""
        if text.isascii() or (self._english and foreign_share([text]) <= _MOSTLY):
            return self._stemmed(text)
        return [part for word in split_words(text) for part in (self._stemmed(word) if word.isascii() else [word])]

    def _stemmed(self, text: str) -> list[str]:
        words: list[str] = self._of_rouge_score.tokenize(text)
        return words
