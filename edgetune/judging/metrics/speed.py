"""How fast answers come. It depends on the machine and what else runs there, so no gate compares it."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.judging.metrics.aggregates import mean_metric
from edgetune.judging.metrics.metric import Metric, MetricResult
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite


def _tokens_per_second(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    rates = [answer.tokens_per_second for answer in answers]
    return mean_metric(rates, "tokens_per_second: nobody measured the speed of these answers")


def _first_token_seconds(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    times = [answer.first_token_seconds for answer in answers]
    return mean_metric(times, "first_token_seconds: nobody measured the speed of these answers")


TOKENS_PER_SECOND = Metric(
    "tokens_per_second",
    "Tokens per second",
    kind="score",
    unit="number",
    higher_is_better=True,
    default_margin=None,
    compute=_tokens_per_second,
    details={"mean": "over answers; decoding only, without the prompt"},
)

FIRST_TOKEN_SECONDS = Metric(
    "first_token_seconds",
    "Seconds to the first token",
    kind="score",
    unit="number",
    higher_is_better=False,
    default_margin=None,
    compute=_first_token_seconds,
    details={"mean": "over answers"},
)
