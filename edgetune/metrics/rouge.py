"""How close written summaries come to their references: ROUGE, https://aclanthology.org/W04-1013."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Literal, get_args

from edgetune.errors import DataError
from edgetune.metrics.metric import Metric, MetricResult, mean_of
from edgetune.metrics.samples import Samples
from edgetune.metrics.stems import StemmedWords
from edgetune.metrics.words import UNSPACED, foreign_share, split_words

RougeName = Literal["rouge1", "rouge2", "rougeL", "rougeLsum"]

ROUGE_NAMES: tuple[RougeName, ...] = get_args(RougeName)

_MOST_FOREIGN = 0.01
"""The share of letters outside a to z up to which references are English. Summaries of papers (SciTLDR) have 0.0005 %,
German, Spanish and French texts about 2 to 4 %."""

_MOSTLY = 0.5
"""A text with a larger share of such letters is not English, whatever the references are."""

_MOST_UNREAD = 0.5
"""If ROUGE reads nothing in the references of a larger share of items, it finds any two models equal."""


def score_rouge(
    predictions: Sequence[str], references: Sequence[Sequence[str]], names: Sequence[RougeName]
) -> dict[RougeName, list[float]]:
    """F1 of each prediction, from 0 to 100, by the names that are asked for.

    rouge1 and rouge2 compare words and pairs of words, rougeL the longest common subsequence of the whole texts, and
    rougeLsum that of their lines: texts must have each sentence on a line of its own to give the numbers that papers
    call ROUGE-Lsum; on texts of one line it is rougeL. Of several references the best counts, for each score by itself.
    The settings are those of `rouge_settings` for these references. Raises ValueError without items, when the lists
    differ in length, or for an item without a reference.
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
        self._english, self._stemmed = english, StemmedWords().tokenize

    def tokenize(self, text: str) -> list[str]:
        """The words that are compared."""
        if text.isascii() or (self._english and foreign_share([text]) <= _MOSTLY):
            return self._stemmed(text)
        return [part for word in split_words(text) for part in (self._stemmed(word) if word.isascii() else [word])]


_kept = lru_cache(maxsize=16)(score_rouge)
"""An evaluation computes a metric twice if some items have no value."""


def _rouge(name: RougeName, title: str) -> Metric:
    def formula(samples: Samples) -> MetricResult:
        compared = [sample for sample in samples if sample.references]
        texts = tuple(sample.text or "" for sample in compared)
        found = iter(_kept(texts, tuple(sample.references for sample in compared), (name,))[name])
        return mean_of([next(found) if sample.references else None for sample in samples])

    return Metric(
        name,
        title,
        formula,
        unit="points",
        default_margin=1.0,
        needs=("text", "references"),
        details_of_references=rouge_settings,
        check_items=_check_references,
    )


def _check_references(samples: Samples) -> None:
    """Raise DataError where ROUGE would find any two models equal."""
    compared = [sample.references for sample in samples if sample.references]
    unread = sum(not any(map(has_rouge_words, references)) for references in compared)
    if unread > _MOST_UNREAD * len(compared):
        raise DataError(
            f"ROUGE compares words, and the references of {unread} of {len(compared)} items have neither letters nor "
            "digits",
            remedy="use the metric exact_match, or let a judge grade the answers",
        )


ROUGE = (
    _rouge("rouge1", "ROUGE-1"),
    _rouge("rouge2", "ROUGE-2"),
    _rouge("rougeL", "ROUGE-L"),
    _rouge("rougeLsum", "ROUGE-Lsum"),
)
