"""Two evaluations -> what the gate compares: the values of each gated metric, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgetune.errors import DataError
from edgetune.judging.metrics.rare_labels import largest_weight
from edgetune.judging.metrics.samples import check_same_tokens, samples_of
from edgetune.judging.results.judgement import Evaluation
from edgetune.judging.results.prepared import PreparedSuite
from edgetune.judging.statistics.clusters import independent_units
from edgetune.judging.statistics.evidence import measure_difference
from edgetune.judging.statistics.quantity import ComparedMetric, Difference, Pairing
from edgetune.judging.suites.items import Item, clusters_of

Values = Sequence[float | None]


def pair_metrics(
    prepared: PreparedSuite, candidate: Evaluation, baseline: Evaluation, preferences: Mapping[str, float]
) -> tuple[Pairing, ...]:
    """One pairing for each metric of the gate. `preferences` are the mean ones, by item.

    Items without a value on either side are left out, and those that the baseline left unanswered; a metric that fewer
    than 2 items (or clusters) have is left out itself.
    """
    return _pair(prepared, prepared.gated, candidate, baseline, preferences)


def compute_differences(prepared: PreparedSuite, candidate: Evaluation, baseline: Evaluation) -> tuple[Difference, ...]:
    """The differences of the metrics that both sides have and the gate does not compare, each with its interval.

    Items are left out as `pair_metrics` does. A metric that fewer than 2 items (or clusters) have on both sides is left
    out, and so is perplexity where the two models split texts into different tokens.
    """
    shared = [name for name in candidate.metrics if name in baseline.metrics and name not in prepared.gated]
    if not _have_same_tokens(candidate, baseline):
        shared = [name for name in shared if not _is_per_token(prepared.compared[name])]
    pairings = _pair(prepared, shared, candidate, baseline, {})
    return tuple(measure_difference(pairing, 1 - prepared.suite.gate.alpha) for pairing in pairings)


def check_tokens(prepared: PreparedSuite, candidate: Evaluation, baseline: Evaluation) -> None:
    """Raise DataError where the gate compares a metric per token of models that split texts into different tokens."""
    if any(_is_per_token(prepared.compared[name]) for name in prepared.gated):
        check_same_tokens(candidate.answers, baseline.answers)


def values_by_item(
    metric: ComparedMetric,
    items: Sequence[Item],
    baseline: Evaluation | None,
    candidate: Evaluation,
    won: Mapping[str, float],
) -> tuple[Values, Values]:
    """A metric's values of the baseline and of the candidate, by item: None where an item has none, and empty for a
    metric that only exists over all items. `won` are the mean preferences; what stands for the baseline there is 0."""
    if metric.of_pairs:
        now = [won.get(item.id) for item in items]
        return [None if value is None else 0.0 for value in now], now
    none = (None,) * len(items)
    sides = (None if side is None else side.metrics.get(metric.name) for side in (baseline, candidate))
    old, new = (none if value is None else value.values for value in sides)
    return old, new


def _pair(
    prepared: PreparedSuite,
    names: Sequence[str],
    candidate: Evaluation,
    baseline: Evaluation,
    preferences: Mapping[str, float],
) -> tuple[Pairing, ...]:
    """A pairing of each metric that at least 2 items (or clusters) have on both sides."""
    refused = baseline.unanswered
    pairings = []
    for name in names:
        metric = prepared.compared[name]
        before, now = values_by_item(metric, prepared.items, baseline, candidate, preferences)
        places = _with_both(before, now) if before and now else range(len(prepared.items))
        kept = [place for place in places if prepared.items[place].id not in refused]
        clusters = clusters_of([prepared.items[place] for place in kept])
        if independent_units(len(kept), clusters) < 2:
            continue
        pairing = Pairing(
            metric.name,
            metric.title,
            metric.kind,
            metric.unit,
            metric.higher_is_better is not False,
            metric.margin or 0.0,
            items=len(kept),
            clusters=clusters,
        )
        if metric.kind == "aggregate":
            pairings.append(_with_aggregates(pairing, metric, prepared, candidate, baseline, kept))
        else:
            new, old = (np.array([side[place] for place in kept], np.float64) for side in (now, before))
            pairings.append(replace(pairing, candidate=new, baseline=old))
    return tuple(pairings)


def _with_aggregates(
    pairing: Pairing,
    metric: ComparedMetric,
    prepared: PreparedSuite,
    candidate: Evaluation,
    baseline: Evaluation,
    kept: Sequence[int],
) -> Pairing:
    """The pairing of a metric that follows from how often each item counts."""
    computed = metric.task_metric
    assert computed is not None
    items = [prepared.items[place] for place in kept]
    new, old = (
        samples_of(items, [side.answers[place] for place in kept], prepared.suite) for side in (candidate, baseline)
    )
    return replace(
        pairing,
        candidate_aggregate=computed.compute(new).aggregate,
        baseline_aggregate=computed.compute(old).aggregate,
        item_weight=largest_weight(computed, new),
    )


def _with_both(before: Values, now: Values) -> list[int]:
    """The places of the items that both sides have a value for."""
    pairs = enumerate(zip(before, now, strict=True))
    return [place for place, values in pairs if values[0] is not None and values[1] is not None]


def _is_per_token(metric: ComparedMetric) -> bool:
    return metric.task_metric is not None and metric.task_metric.per_token


def _have_same_tokens(candidate: Evaluation, baseline: Evaluation) -> bool:
    try:
        check_same_tokens(candidate.answers, baseline.answers)
    except DataError:
        return False
    return True
