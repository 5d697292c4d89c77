"""What a metric is: how it is computed by item and over all items, how it is compared, and when a loss matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgetune.judging.statistics.intervals import Interval
from edgetune.judging.statistics.quantity import Aggregate, Unit, ValueKind
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite


@dataclass(frozen=True)
class MetricResult:
    """One metric of one model's answers. `values` has one entry per item (None: this item has none), or is empty.

    `aggregate` recomputes `value` from how often each item counts.
    """

    value: float
    values: tuple[float | None, ...]
    aggregate: Aggregate


@dataclass(frozen=True)
class Metric:
    """A metric by its name in suites. `compute` raises DataError when the items or answers lack what it needs."""

    name: str
    title: str
    kind: ValueKind
    unit: Unit
    higher_is_better: bool | None
    """None: neither is better (length), so a gate cannot use it."""
    default_margin: float | None
    compute: Callable[[Sequence[Item], Sequence[Answer], Suite], MetricResult]
    tasks: tuple[str, ...] = ("generate", "summarize")
    details: dict[str, Any] = field(default_factory=dict)
    """What a reader needs to get the same numbers (stemmer, splitter, library and version)."""
    details_of_items: Callable[[Sequence[Item]], dict[str, Any]] | None = None
    """The rest of them, where they go by the items."""

    def all_details(self, items: Sequence[Item]) -> dict[str, Any]:
        """What a reader needs to get the same numbers on these items."""
        return self.details if self.details_of_items is None else {**self.details, **self.details_of_items(items)}


@dataclass(frozen=True)
class MetricValue:
    """One metric of one model: over all items, with its interval where there is one, and item by item.

    `values` has one entry per item, in their order; None where the item has none (an unscored verdict). It is empty
    for metrics that only exist over all items.
    """

    value: float
    interval: Interval | None
    values: tuple[float | None, ...]
