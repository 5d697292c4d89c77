"""Short answers against their references: exact match and token F1."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.judging.metrics.aggregates import mean_metric
from edgetune.judging.metrics.metric import Metric, MetricResult
from edgetune.judging.metrics.texts import by_reference
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.exact_match import exact_match
from edgetune.metrics.squad import NORMALIZATION
from edgetune.metrics.token_f1 import WORDS, token_f1

NO_REFERENCES = "no item has a reference to compare answers with"

_BEST = "the best of several"


def _exact_match(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    return mean_metric(by_reference(items, answers, lambda *pair: float(exact_match(*pair))), NO_REFERENCES)


def _token_f1(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    return mean_metric(by_reference(items, answers, token_f1), NO_REFERENCES)


EXACT_MATCH = Metric(
    "exact_match",
    "Exact match",
    kind="accuracy",
    unit="share",
    higher_is_better=True,
    default_margin=0.02,
    compute=_exact_match,
    details={"normalization": NORMALIZATION, "references": _BEST},
)

TOKEN_F1 = Metric(
    "token_f1",
    "Token F1",
    kind="score",
    unit="share",
    higher_is_better=True,
    default_margin=0.02,
    compute=_token_f1,
    details={"words": WORDS, "references": _BEST},
)
