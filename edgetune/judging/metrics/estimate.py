"""One metric of one model by itself, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgetune.judging.metrics.rare_labels import largest_weight
from edgetune.judging.statistics.accuracy import wilson_interval
from edgetune.judging.statistics.bootstrap import bootstrap_interval
from edgetune.judging.statistics.bounded import bounded_interval
from edgetune.judging.statistics.clusters import independent_units
from edgetune.judging.statistics.intervals import Interval, hull
from edgetune.judging.statistics.scores import mean_with_error, t_interval
from edgetune.judging.statistics.sums import resample_together
from edgetune.judging.suites.items import Item, clusters_of
from edgetune.metrics.metric import Metric, MetricResult
from edgetune.metrics.samples import Samples
from edgetune.metrics.units import SCALES, Unit


@dataclass(frozen=True)
class MetricValue:
    """One metric of one model: over all items, with its interval where there is one, and item by item.

    `values` has one entry per item, in their order; None where the item has none (an unscored verdict). It is empty
    for metrics that only exist over all items.
    """

    value: float
    interval: Interval | None
    values: tuple[float | None, ...]


def estimate_mean(
    values: Sequence[float | None], items: Sequence[Item], unit: Unit, confidence: float
) -> MetricValue | None:
    """The mean of the items that have a value; None where no item has one. Its interval is that of a bounded mean, or
    Student's where the unit has no ends."""
    kept = [(value, item) for value, item in zip(values, items, strict=True) if value is not None]
    if not kept:
        return None
    scores = np.array([value for value, _ in kept])
    clusters = clusters_of([item for _, item in kept])
    interval = None
    if independent_units(len(kept), clusters) > 1:
        if unit in SCALES:
            interval = bounded_interval(scores, *SCALES[unit], clusters, confidence)
        else:
            interval = t_interval(mean_with_error(scores, clusters), confidence)
    return MetricValue(float(scores.mean()), interval, tuple(values))


def estimate_metric(metric: Metric, items: Sequence[Item], samples: Samples, confidence: float) -> MetricValue:
    """A metric with the interval that fits its kind and unit; none of a lone item.

    Right or wrong has Wilson's, other means `estimate_mean`'s, and aggregates the bootstrap's. No interval leaves the
    scale of its unit.

    Items without a value (no reference, nothing to score) have no part in it. Raises DataError as the metric does.
    """
    if metric.check_items is not None:
        metric.check_items(samples)
    found = metric.compute(samples)
    values = found.values
    if None in values:
        kept = [place for place, value in enumerate(values) if value is not None]
        items, samples = [items[place] for place in kept], samples.at(kept)
        found = metric.compute(samples)
    return MetricValue(found.value, _interval(found, metric, items, samples, confidence), values)


def _interval(
    found: MetricResult, metric: Metric, items: Sequence[Item], samples: Samples, confidence: float
) -> Interval | None:
    clusters = clusters_of(items)
    if metric.kind == "accuracy" and clusters is None:
        return wilson_interval(sum(value == 1 for value in found.values), len(items), confidence)
    if independent_units(len(items), clusters) < 2:
        return None
    if metric.kind == "aggregate":
        (drawn,) = resample_together([found.aggregate], len(items), clusters)
        interval = bootstrap_interval(drawn, confidence)
        if metric.unit not in SCALES:
            return interval
        lowest, highest = SCALES[metric.unit]
        reach = largest_weight(metric, samples) * (highest - lowest)
        ends = min(lowest, drawn.value - reach), max(highest, drawn.value + reach)
        interval = hull(interval, bounded_interval(drawn.own_values, *ends, None, confidence))
        return Interval(max(lowest, interval.lower), min(highest, interval.upper), confidence)
    mean = estimate_mean(found.values, items, metric.unit, confidence)
    return None if mean is None else mean.interval
