"""Whether an answer is one of the right ones, word for word."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.metrics.metric import Metric, by_item
from edgetune.metrics.samples import against_references
from edgetune.metrics.squad import NORMALIZATION, normalize_answer


def exact_match(prediction: str, references: Sequence[str]) -> bool:
    """True when the answer equals one of its references after SQuAD's normalization (`squad.NORMALIZATION`).

    Source: https://aclanthology.org/D16-1264. Raises ValueError without a reference.
    """
    if not references:
        raise ValueError("an item has no reference")
    return normalize_answer(prediction) in map(normalize_answer, references)


EXACT_MATCH = Metric(
    "exact_match",
    "Exact match",
    by_item(against_references(exact_match)),
    kind="accuracy",
    needs=("text", "references"),
    details={"normalization": NORMALIZATION, "references": "the best of several"},
)
