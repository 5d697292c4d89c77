"""How many words an answer shares with the right one, in any language."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from edgetune.metrics.metric import Metric, by_item
from edgetune.metrics.samples import against_references
from edgetune.metrics.squad import normalize_answer
from edgetune.metrics.words import UNSPACED, fold_case, split_unspaced

WORDS = (
    "SQuAD's: lower case, without punctuation, without the words a, an and the; as MLQA's evaluation beyond ASCII: "
    f"Unicode's punctuation, {UNSPACED}"
)
"""For people: the words of token F1."""


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 of the words that an answer shares with a reference, from 0 to 1; of several references the best counts.

    Words are those of `answer_words`, counted as often as they occur. Where one side has no words, 1 when the other has
    none either and 0 otherwise, as SQuAD 2.0 counts it. Source: https://aclanthology.org/D16-1264. Raises ValueError
    without a reference.
    """
    if not references:
        raise ValueError("an item has no reference")
    words = answer_words(prediction)
    return max(_f1(words, answer_words(reference)) for reference in references)


def answer_words(text: str) -> list[str]:
    """The words of SQuAD's normalization; beyond ASCII without Unicode's punctuation too, and in one form (NFKC).

    Punctuation is left out and parts no words, as in SQuAD. Letters of scripts that write no spaces are words by
    themselves. Source: https://aclanthology.org/2020.acl-main.653 (MLQA), which does so for Chinese.
    """
    if not text.isascii():
        text = "".join(character for character in fold_case(text) if not _is_punctuation(character))
    return [part for word in normalize_answer(text).split() for part in split_unspaced(word)]


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character).startswith("P")


def _f1(predicted: list[str], right: list[str]) -> float:
    if not predicted or not right:
        return float(predicted == right)
    shared = sum((Counter(predicted) & Counter(right)).values())
    return 2 * shared / (len(predicted) + len(right))


TOKEN_F1 = Metric(
    "token_f1",
    "Token F1",
    by_item(against_references(token_f1)),
    needs=("text", "references"),
    details={"words": WORDS, "references": "the best of several"},
)
