"""How close written summaries come to their references: ROUGE, https://aclanthology.org/W04-1013."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


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
    from rouge_score.rouge_scorer import RougeScorer

    if len(predictions) != len(references) or not predictions:
        raise ValueError(f"{len(predictions)} predictions and {len(references)} references cannot be compared")
    if not all(references):
        raise ValueError("an item has no reference")
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    scores = [scorer.score_multi(texts, text) for text, texts in zip(predictions, references, strict=True)]

    def mean(name: str) -> float:
        return 100 * fmean(float(score[name].fmeasure) for score in scores)

    return Rouge(mean("rouge1"), mean("rouge2"), mean("rougeL"), mean("rougeLsum"), items=len(predictions))
