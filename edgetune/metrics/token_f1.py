"""How many words an answer shares with the right one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from edgetune.metrics.squad import normalize_answer


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 of the words that an answer shares with a reference, from 0 to 1; of several references the best counts.

    Words are those of SQuAD's normalization (`squad.NORMALIZATION`), counted as often as they occur. Where one side
    has no words, 1 when the other has none either and 0 otherwise, as SQuAD 2.0 counts it. Source:
    https://aclanthology.org/D16-1264. Raises ValueError without a reference.
    """
    if not references:
        raise ValueError("an item has no reference")
    words = normalize_answer(prediction).split()
    return max(_f1(words, normalize_answer(reference).split()) for reference in references)


def _f1(predicted: list[str], right: list[str]) -> float:
    if not predicted or not right:
        return float(predicted == right)
    shared = sum((Counter(predicted) & Counter(right)).values())
    return 2 * shared / (len(predicted) + len(right))
