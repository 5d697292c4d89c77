"""ROUGE of written answers against their references, F1 from 0 to 100."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgetune.errors import DataError
from edgetune.judging.answer import Answer
from edgetune.judging.items import Item
from edgetune.judging.measures.aggregates import measure_mean
from edgetune.judging.measures.measure import Measure, Measurement
from edgetune.judging.measures.short_answers import NO_REFERENCES
from edgetune.judging.measures.texts import texts_of
from edgetune.judging.suite import Suite
from edgetune.metrics.rouge import ROUGE_NAMES, RougeName, has_rouge_words, rouge_settings, score_rouge

_TITLES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}

_MOST_UNREAD = 0.5
"""A larger share of items whose references hold nothing that ROUGE reads: it would find any two models equal."""


def _measure(name: RougeName) -> Callable[[Sequence[Item], Sequence[Answer], Suite], Measurement]:
    def measure(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> Measurement:
        pairs = [(text, item) for text, item in zip(texts_of(answers), items, strict=True) if item.references]
        if not pairs:
            raise DataError(NO_REFERENCES)
        unread = sum(not any(map(has_rouge_words, item.references)) for _, item in pairs)
        if unread > _MOST_UNREAD * len(pairs):
            raise DataError(
                f"ROUGE compares words, and the references of {unread} of {len(pairs)} items have neither letters nor "
                "digits",
                remedy="measure exact_match, or let a judge grade",
            )
        scores = score_rouge([text for text, _ in pairs], [item.references for _, item in pairs], [name])[name]
        found = iter(scores)
        return measure_mean([next(found) if item.references else None for item in items], NO_REFERENCES)

    return measure


ROUGE = tuple(
    Measure(
        name,
        _TITLES[name],
        kind="score",
        unit="points",
        higher_is_better=True,
        default_margin=1.0,
        measure=_measure(name),
        details_of_items=lambda items: rouge_settings([item.references for item in items]),
    )
    for name in ROUGE_NAMES
)
