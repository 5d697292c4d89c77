"""How fast answers come. It depends on the machine and what else runs there, so no gate compares it."""

from __future__ import annotations

from edgetune.metrics.metric import Metric, by_item

TOKENS_PER_SECOND = Metric(
    "tokens_per_second",
    "Tokens per second",
    by_item(lambda sample: sample.tokens_per_second),
    unit="number",
    default_margin=None,
    needs=("tokens_per_second",),
    details={"mean": "over answers; decoding only, without the prompt"},
)

FIRST_TOKEN_SECONDS = Metric(
    "first_token_seconds",
    "Seconds to the first token",
    by_item(lambda sample: sample.first_token_seconds),
    unit="number",
    higher_is_better=False,
    default_margin=None,
    needs=("first_token_seconds",),
    details={"mean": "over answers"},
)
