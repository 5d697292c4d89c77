"""How fast answers come. It depends on the machine and what else runs there, so no gate compares it."""

from __future__ import annotations

from edgetune.metrics.metric import Metric, by_item

TOKENS_PER_SECOND = Metric(
    "tokens_per_second",
    "Tokens per second",
    kind="score",
    unit="number",
    higher_is_better=True,
    default_margin=None,
    formula=by_item(lambda sample: sample.tokens_per_second),
    needs=("tokens_per_second",),
    details={"mean": "over answers; decoding only, without the prompt"},
)

FIRST_TOKEN_SECONDS = Metric(
    "first_token_seconds",
    "Seconds to the first token",
    kind="score",
    unit="number",
    higher_is_better=False,
    default_margin=None,
    formula=by_item(lambda sample: sample.first_token_seconds),
    needs=("first_token_seconds",),
    details={"mean": "over answers"},
)
