"""ROUGE of written answers against their references, F1 from 0 to 100."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from edgetune.errors import DataError
from edgetune.judging.metrics.aggregates import mean_metric
from edgetune.judging.metrics.metric import Metric, MetricResult
from edgetune.judging.metrics.short_answers import NO_REFERENCES
from edgetune.judging.metrics.texts import texts_of
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.rouge import ROUGE_NAMES, RougeName, has_rouge_words, rouge_settings, score_rouge

_TITLES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}

_MOST_UNREAD = 0.5
"""A larger share of items whose references hold nothing that ROUGE reads: it would find any two models equal."""


def _measure(name: RougeName) -> Callable[[Sequence[Item], Sequence[Answer], Suite], MetricResult]:
    def compute(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
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
        found = iter(_scores(tuple(text for text, _ in pairs), tuple(item.references for _, item in pairs), name))
        return mean_metric([next(found) if item.references else None for item in items], NO_REFERENCES)

    return compute


@lru_cache(maxsize=16)
def _scores(texts: tuple[str, ...], references: tuple[tuple[str, ...], ...], name: RougeName) -> tuple[float, ...]:
    """ROUGE of each text. The gate compares what was measured just before, so the last ones are kept."""
    return tuple(score_rouge(texts, references, [name])[name])


ROUGE = tuple(
    Metric(
        name,
        _TITLES[name],
        kind="score",
        unit="points",
        higher_is_better=True,
        default_margin=1.0,
        compute=_measure(name),
        details_of_items=lambda items: rouge_settings([item.references for item in items]),
    )
    for name in ROUGE_NAMES
)
