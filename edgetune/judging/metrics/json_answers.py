"""Answers that must be JSON, or fit the suite's JSON schema."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from edgetune.errors import RecipeError
from edgetune.judging.metrics.aggregates import measure_mean
from edgetune.judging.metrics.measure import Measure, Measurement
from edgetune.judging.metrics.texts import texts_of
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.json_schema import schema_check
from edgetune.metrics.json_text import READING, is_json


def _json_valid(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> Measurement:
    return measure_mean([float(is_json(text)) for text in texts_of(answers)], "there is no answer")


def _json_schema(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> Measurement:
    if not isinstance(suite.json_schema, dict):
        raise RecipeError("metric json_schema needs a schema", remedy="give json_schema: in the suite")
    fits = schema_check(suite.json_schema)
    return measure_mean([float(fits(text)) for text in texts_of(answers)], "there is no answer")


JSON_VALID = Measure(
    "json_valid",
    "JSON validity",
    kind="accuracy",
    unit="share",
    higher_is_better=True,
    default_margin=0.02,
    measure=_json_valid,
    details={"reading": READING},
)

JSON_SCHEMA = Measure(
    "json_schema",
    "JSON schema match",
    kind="accuracy",
    unit="share",
    higher_is_better=True,
    default_margin=0.02,
    measure=_json_schema,
    details={"reading": READING, "library": f"jsonschema {version('jsonschema')}", "format": "not asserted"},
)
