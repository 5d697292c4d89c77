"""Answers that must be JSON, or fit a JSON schema."""

from __future__ import annotations

from importlib.metadata import version

from edgetune.metrics.json_schema import schema_check
from edgetune.metrics.json_text import READING, is_json
from edgetune.metrics.metric import Metric, MetricResult, by_item, mean_of
from edgetune.metrics.samples import Samples


def _fits_schema(samples: Samples) -> MetricResult:
    fits = schema_check(samples.json_schema or {})
    return mean_of([fits(sample.text or "") for sample in samples])


JSON_VALID = Metric(
    "json_valid",
    "JSON validity",
    by_item(lambda sample: is_json(sample.text or "")),
    kind="accuracy",
    details={"reading": READING},
)

JSON_SCHEMA = Metric(
    "json_schema",
    "JSON schema match",
    _fits_schema,
    kind="accuracy",
    needs=("text", "json_schema"),
    details={"reading": READING, "library": f"jsonschema {version('jsonschema')}", "format": "not asserted"},
)
