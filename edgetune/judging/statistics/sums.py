"""The bootstrap of metrics that are made of sums over the items, without going through the items.

A resample counts how often each item was drawn. Where many items are of the same kind (of three labels there are nine
pairs of right label and answer, and 27 with the baseline's), only the counts of the kinds matter, and these follow a
multinomial distribution: the bootstrap of the items exactly, for the work of drawing as many numbers as there are kinds
(Efron, Tibshirani, 1993, An Introduction to the Bootstrap, section 8.3, calls these counts the resampling vector).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgetune.judging.statistics.bootstrap import RESAMPLES, WEIGHTS_AT_ONCE, Bootstrap, draw_units, resample
from edgetune.judging.statistics.clusters import number_clusters
from edgetune.metrics.aggregates import Aggregate, SumMetric

_ITEMS_PER_KIND = 10
"""From so many items of a kind on, drawing the kind's count is quicker than drawing its items."""

Floats = NDArray[np.float64]


def resample_together(
    aggregates: Sequence[Aggregate],
    items: int,
    clusters: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Bootstrap, ...]:
    """`resample` of several metrics of the same items, all computed from the same draws.

    Metrics that are a SumMetric are resampled by kind. Raises ValueError as `resample` does.
    """
    metrics = [aggregate for aggregate in aggregates if isinstance(aggregate, SumMetric)]
    if len(metrics) < len(aggregates):
        return tuple(resample(each, items, clusters, resamples=resamples, seed=seed) for each in aggregates)
    numbers = number_clusters(clusters, items)
    units = int(numbers.max(initial=-1)) + 1
    if units < 2:
        raise ValueError(f"a bootstrap needs at least 2 {'items' if clusters is None else 'clusters'}")
    kinds, rows = _kinds_together(metrics) if clusters is None else _sums_of_clusters(metrics, numbers, units)
    counts = np.bincount(kinds, minlength=rows.shape[0]).astype(np.float64)
    total = counts @ rows
    places = np.cumsum([metric.rows.shape[1] for metric in metrics])[:-1]
    parts = _chunks(rows, max(1, WEIGHTS_AT_ONCE // rows.shape[1]))
    left_out = np.concatenate([_combine(metrics, total - part, places) for part in parts], axis=1)[:, kinds]
    draws = _draw_kinds(counts, resamples, seed)
    drawn = np.concatenate([_combine(metrics, weights @ rows, places) for weights in draws], axis=1)
    value = _combine(metrics, total[None], places)
    if not (np.isfinite(value).all() and np.isfinite(left_out).all() and np.isfinite(drawn).all()):
        raise ValueError("the metric is not finite for every resample of the items")
    return tuple(Bootstrap(float(value[place, 0]), drawn[place], left_out[place]) for place in range(len(metrics)))


def _combine(metrics: Sequence[SumMetric], sums: Floats, places: NDArray[np.intp]) -> Floats:
    """Sums of all metrics' columns, (b, c), to their values, (m, b)."""
    return np.array(
        [metric.combine(part) for metric, part in zip(metrics, np.split(sums, places, axis=1), strict=True)]
    )


def _kinds_together(metrics: Sequence[SumMetric]) -> tuple[NDArray[np.intp], Floats]:
    """Each item's kind where items of one kind are alike for all metrics, (n,), and the kinds' rows, side by side."""
    together = np.column_stack([metric.kinds for metric in metrics])
    found, kinds = np.unique(together, axis=0, return_inverse=True)
    return kinds.reshape(-1), np.hstack([metric.rows[found[:, place]] for place, metric in enumerate(metrics)])


def _sums_of_clusters(
    metrics: Sequence[SumMetric], numbers: NDArray[np.intp], units: int
) -> tuple[NDArray[np.intp], Floats]:
    """Each cluster is of a kind of its own; its row is the sum of its items'."""
    columns = [
        np.bincount(numbers, weights=column[metric.kinds], minlength=units)
        for metric in metrics
        for column in metric.rows.T
    ]
    return np.arange(units), np.column_stack(columns).astype(np.float64)


def _draw_kinds(counts: Floats, resamples: int, seed: int) -> Iterator[Floats]:
    """How many of each kind are drawn in each resample, (b, k) in chunks."""
    size, units = counts.size, int(counts.sum())
    if units < _ITEMS_PER_KIND * size:
        # Any item may be drawn in the place of any other, so those of one kind may lie side by side.
        first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp)
        for weights in draw_units(units, resamples, seed):
            yield weights if size == units else np.add.reduceat(weights, first, axis=1)
        return
    generator = np.random.default_rng(seed)
    at_once = max(1, WEIGHTS_AT_ONCE // size)
    for done in range(0, resamples, at_once):
        yield generator.multinomial(units, counts / units, min(at_once, resamples - done)).astype(np.float64)


def _chunks(rows: Floats, length: int) -> Iterator[Floats]:
    for first in range(0, rows.shape[0], length):
        yield rows[first : first + length]
