"""How long answers are. Neither longer nor shorter is better, so no gate can use it."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.judging.metrics.aggregates import mean_metric
from edgetune.judging.metrics.metric import Metric, MetricResult
from edgetune.judging.metrics.texts import lengths_of
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.length import count_characters, count_words


def _words(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    return mean_metric(lengths_of(answers, count_words), "there is no answer")


def _characters(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    return mean_metric(lengths_of(answers, count_characters), "there is no answer")


def _tokens(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    counts = [None if answer.generated_tokens is None else float(answer.generated_tokens) for answer in answers]
    return mean_metric(counts, "length_tokens: token counts are missing for these answers")


LENGTH_WORDS = Metric(
    "length_words",
    "Length in words",
    kind="score",
    unit="number",
    higher_is_better=None,
    default_margin=None,
    compute=_words,
    details={"words": "what white space divides"},
)

LENGTH_CHARACTERS = Metric(
    "length_characters",
    "Length in characters",
    kind="score",
    unit="number",
    higher_is_better=None,
    default_margin=None,
    compute=_characters,
    details={"characters": "Unicode code points"},
)

LENGTH_TOKENS = Metric(
    "length_tokens",
    "Length in tokens",
    kind="score",
    unit="number",
    higher_is_better=None,
    default_margin=None,
    compute=_tokens,
    details={"tokens": "the model's own"},
)
