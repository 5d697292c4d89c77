"""Answers that must be JSON, or fit the suite's JSON schema."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from edgetune.errors import RecipeError
from edgetune.judging.metrics.aggregates import mean_metric
from edgetune.judging.metrics.metric import Metric, MetricResult
from edgetune.judging.metrics.texts import texts_of
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.json_schema import schema_check
from edgetune.metrics.json_text import READING, is_json


def _json_valid(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    return mean_metric([float(is_json(text)) for text in texts_of(answers)], "there is no answer")


def _json_schema(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    if not isinstance(suite.json_schema, dict):
        raise RecipeError("metric json_schema needs a schema", remedy="give json_schema: in the suite")
    fits = schema_check(suite.json_schema)
    return mean_metric([float(fits(text)) for text in texts_of(answers)], "there is no answer")


JSON_VALID = Metric(
    "json_valid",
    "JSON validity",
    kind="accuracy",
    unit="share",
    higher_is_better=True,
    default_margin=0.02,
    compute=_json_valid,
    details={"reading": READING},
)

JSON_SCHEMA = Metric(
    "json_schema",
    "JSON schema match",
    kind="accuracy",
    unit="share",
    higher_is_better=True,
    default_margin=0.02,
    compute=_json_schema,
    details={"reading": READING, "library": f"jsonschema {version('jsonschema')}", "format": "not asserted"},
)
