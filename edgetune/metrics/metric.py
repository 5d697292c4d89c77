"""What a metric is: a formula over samples, how its values are written and compared, and when a loss matters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgetune.errors import DataError
from edgetune.metrics.aggregates import Aggregate, ratio, value_of
from edgetune.metrics.samples import Sample, Samples
from edgetune.metrics.units import SCALES, Unit, ValueKind


@dataclass(frozen=True)
class MetricResult:
    """One metric of one model's answers. `values` has one entry per item (None: this item has none), or is empty.

    `aggregate` recomputes `value` from how often each item counts.
    """

    value: float
    values: tuple[float | None, ...]
    aggregate: Aggregate


Formula = Callable[[Samples], MetricResult]


@dataclass(frozen=True)
class Metric:
    """A metric by its name in suites and recipes."""

    name: str
    title: str
    formula: Formula
    kind: ValueKind = "score"
    unit: Unit = "share"
    higher_is_better: bool | None = True
    """None: neither is better (length), so a gate cannot use it."""
    default_margin: float | None = 0.02
    """The smallest loss that matters, unless a suite says otherwise; None for a metric that no gate compares."""
    needs: tuple[str, ...] = ("text",)
    """Fields of Sample that must be there; `json_schema` where the formula needs one."""
    tasks: tuple[str, ...] = ("generate", "summarize")
    per_token: bool = False
    """True for a value per token: only models that split texts into the same tokens can be compared by it."""
    details: dict[str, Any] = field(default_factory=dict)
    """What a reader needs to get the same numbers (stemmer, splitter, library and version)."""
    details_of_references: Callable[[Sequence[Sequence[str]]], dict[str, Any]] | None = None
    """The rest of them, where they depend on the items' references."""
    check_items: Callable[[Samples], None] | None = None
    """Raises DataError for items on which the metric would find any two models equal; the judge asks before it
    compares."""

    def compute(self, samples: Samples) -> MetricResult:
        """The metric of these samples.

        Raises DataError where they lack what it needs, where no item has a value, and for an item's value that its kind
        or unit rules out.
        """
        try:
            samples.check(self.needs)
        except DataError as problem:
            raise DataError(f"metric {self.name}: {problem.what}", remedy=problem.remedy) from None
        found = self.formula(samples)
        if not math.isfinite(found.value):
            raise DataError(f"metric {self.name}: no item has a value")
        lowest, highest = SCALES.get(self.unit, (-math.inf, math.inf))
        for value, sample in zip(found.values, samples, strict=False):
            if value is not None and not (lowest <= value <= highest and (self.kind != "accuracy" or value in (0, 1))):
                allowed = "0 or 1" if self.kind == "accuracy" else f"from {lowest:g} to {highest:g}"
                raise DataError(f"metric {self.name} is {value:g} for item {sample.id}; it must be {allowed}")
        return found

    def all_details(self, references: Sequence[Sequence[str]]) -> dict[str, Any]:
        """What a reader needs to get the same numbers on items with these references."""
        more = {} if self.details_of_references is None else self.details_of_references(references)
        return {**self.details, **more}


def by_item(score: Callable[[Sample], float | None]) -> Formula:
    """The formula of a metric that is a mean over the items: `score` of each, None for an item that has no value."""
    return lambda samples: mean_of([score(sample) for sample in samples])


def mean_of(values: Sequence[float | None]) -> MetricResult:
    """The mean over the items that have a value; nan where none has."""
    floats = tuple(None if value is None else float(value) for value in values)
    present = np.array([value is not None for value in floats], dtype=np.float64)
    aggregate = ratio(np.array([value or 0.0 for value in floats], dtype=np.float64), present)
    return MetricResult(value_of(aggregate, len(floats)), floats, aggregate)
