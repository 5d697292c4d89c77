"""How close written summaries come to their references: ROUGE, https://aclanthology.org/W04-1013."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import fmean
from typing import Literal, get_args

from edgetune.metrics.stems import StemmedWords

RougeName = Literal["rouge1", "rouge2", "rougeL", "rougeLsum"]

ROUGE_NAMES: tuple[RougeName, ...] = get_args(RougeName)

_WORD = re.compile("[a-z0-9]")


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

    The settings are those of `rouge_settings`: sentences of rougeLsum are lines, so texts must have each sentence on a
    line of its own to give the numbers that papers call ROUGE-Lsum; on texts of one line it is rougeL. Raises
    ValueError without items, when the lists differ in length, or for an item without a reference.
    """
    from rouge_score.rouge_scorer import RougeScorer

    if len(predictions) != len(references) or not predictions:
        raise ValueError(f"{len(predictions)} predictions and {len(references)} references cannot be compared")
    if not all(references):
        raise ValueError("an item has no reference")
    scorer = RougeScorer(list(names), tokenizer=StemmedWords())
    scores = [scorer.score_multi(texts, text) for text, texts in zip(predictions, references, strict=True)]
    return {name: [100 * float(score[name].fmeasure) for score in scores] for name in names}


def rouge_settings() -> dict[str, str]:
    """What a reader needs to get the same numbers: library, words, stemmer, sentences, several references."""
    return {
        "library": f"rouge-score {version('rouge-score')}",
        "words": "lower case, runs of a-z and 0-9; no other script is read",
        "stemmer": f"Porter's in nltk {version('nltk')}, for words of more than 3 characters",
        "sentences": "lines, split at \\n (rougeLsum); no sentence splitter",
        "references": "the best F1 of several, for each score by itself",
    }


def has_rouge_words(text: str) -> bool:
    """True when ROUGE can see anything in the text; it reads the letters a to z and digits alone."""
    return _WORD.search(text.lower()) is not None
