"""How fast answers come. It depends on the machine and what else runs there, so no gate compares it."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.judging.metrics.aggregates import measure_mean
from edgetune.judging.metrics.measure import Measure, Measurement
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite


def _tokens_per_second(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> Measurement:
    rates = [answer.tokens_per_second for answer in answers]
    return measure_mean(rates, "tokens_per_second: nobody measured the speed of these answers")


def _first_token_seconds(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> Measurement:
    times = [answer.first_token_seconds for answer in answers]
    return measure_mean(times, "first_token_seconds: nobody measured the speed of these answers")


TOKENS_PER_SECOND = Measure(
    "tokens_per_second",
    "Tokens per second",
    kind="score",
    unit="number",
    higher_is_better=True,
    default_margin=None,
    measure=_tokens_per_second,
    details={"mean": "over answers; decoding only, without the prompt"},
)

FIRST_TOKEN_SECONDS = Measure(
    "first_token_seconds",
    "Seconds to the first token",
    kind="score",
    unit="number",
    higher_is_better=False,
    default_margin=None,
    measure=_first_token_seconds,
    details={"mean": "over answers"},
)
