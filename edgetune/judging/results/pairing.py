"""Two evaluations -> what the gate compares: the values of each gated metric, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgetune.errors import DataError
from edgetune.judging.metrics import METRICS, same_tokens
from edgetune.judging.metrics.metric import Metric
from edgetune.judging.metrics.rare_labels import largest_weight
from edgetune.judging.results.judgement import Evaluation
from edgetune.judging.results.prepared import PREFERENCE, PreparedSuite
from edgetune.judging.results.unanswered import unanswered_items
from edgetune.judging.statistics.clusters import independent_units
from edgetune.judging.statistics.evidence import measure_difference
from edgetune.judging.statistics.quantity import Aggregate, Difference, Pairing
from edgetune.judging.suites.items import Item, clusters_of

GRADE_MARGIN = 0.2
"""The smallest loss that matters of a criterion, in grades of the judge's scale, unless the suite says otherwise."""

PREFERENCE_MARGIN = 0.1
"""The same of pairs won minus pairs lost, as a share of all pairs."""


def pair_metrics(
    prepared: PreparedSuite, candidate: Evaluation, baseline: Evaluation, preferences: Mapping[str, float]
) -> tuple[Pairing, ...]:
    """One pairing for each metric of the gate. `preferences` are the mean ones, by item.

    Items without a value on either side are left out, and those that the baseline left unanswered; a metric that fewer
    than 2 items (or clusters) have is left out itself.
    """
    refused = unanswered_items(baseline)
    baseline = _without_values(baseline, refused)
    preferences = {item: value for item, value in preferences.items() if item not in refused}
    pairings = []
    for metric in prepared.gated:
        if metric == PREFERENCE:
            pairing = _pair_preferences(prepared, preferences)
        elif metric in METRICS:
            pairing = _pair_task_metric(prepared, metric, candidate, baseline)
        else:
            pairing = _pair_criterion(prepared, metric, candidate, baseline)
        if independent_units(pairing.items, pairing.clusters) >= 2:
            pairings.append(pairing)
    return tuple(pairings)


def measure_differences(prepared: PreparedSuite, candidate: Evaluation, baseline: Evaluation) -> tuple[Difference, ...]:
    """The differences of the metrics that both sides have and the gate does not compare, each with its interval.

    Items are left out as `pair_metrics` does. A metric that fewer than 2 items (or clusters) have on both sides is left
    out, and so is perplexity where the two models split texts into different tokens.
    """
    baseline = _without_values(baseline, unanswered_items(baseline))
    differences = []
    for metric in candidate.metrics:
        if metric in prepared.gated or metric not in baseline.metrics:
            continue
        if metric == "perplexity" and not _same_tokens(candidate, baseline):
            continue
        pair = _pair_task_metric if metric in METRICS else _pair_criterion
        pairing = pair(prepared, metric, candidate, baseline)
        if independent_units(pairing.items, pairing.clusters) >= 2:
            differences.append(measure_difference(pairing, 1 - prepared.suite.gate.alpha))
    return tuple(differences)


def _same_tokens(candidate: Evaluation, baseline: Evaluation) -> bool:
    try:
        same_tokens(candidate.answers, baseline.answers)
    except DataError:
        return False
    return True


def _without_values(evaluation: Evaluation, items: Set[str]) -> Evaluation:
    """The evaluation in which these items have no value of any metric."""
    if not items:
        return evaluation
    places = [answer.id in items for answer in evaluation.answers]
    metrics = {
        name: replace(one, values=tuple(None if out else value for value, out in zip(one.values, places, strict=False)))
        for name, one in evaluation.metrics.items()
    }
    return replace(evaluation, metrics=metrics)


def _pair_task_metric(prepared: PreparedSuite, name: str, candidate: Evaluation, baseline: Evaluation) -> Pairing:
    suite, items, metric = prepared.suite, prepared.items, METRICS[name]
    margin = suite.gate.margin_of(name) if name in prepared.gated else None
    empty = Pairing(
        name,
        metric.title,
        metric.kind,
        metric.unit,
        metric.higher_is_better is not False,
        (metric.default_margin or 0.0) if margin is None else margin,
        items=0,
    )
    ours, theirs = candidate.metrics[name].values, baseline.metrics[name].values
    if metric.kind == "aggregate":
        # A metric that exists only over all items has no values by item.
        kept = _with_both(ours, theirs) if ours and theirs else range(len(items))
        kept = [place for place in kept if baseline.answers[place].unanswered is None]
        return replace(
            empty,
            items=len(kept),
            candidate_aggregate=_aggregate(prepared, metric, candidate, kept),
            baseline_aggregate=_aggregate(prepared, metric, baseline, kept),
            clusters=clusters_of([items[place] for place in kept]),
            item_weight=largest_weight(metric, [items[place] for place in kept], suite),
        )
    return _paired(empty, items, ours, theirs)


def _aggregate(prepared: PreparedSuite, metric: Metric, evaluation: Evaluation, kept: Sequence[int]) -> Aggregate:
    """How a metric of some of the items follows from how often each of them counts."""
    items = [prepared.items[place] for place in kept]
    answers = [evaluation.answers[place] for place in kept]
    return metric.compute(items, answers, prepared.suite).aggregate


def _pair_criterion(prepared: PreparedSuite, name: str, candidate: Evaluation, baseline: Evaluation) -> Pairing:
    margin = prepared.suite.gate.margin_of(name)
    margin, title = GRADE_MARGIN if margin is None else margin, name.replace("_", " ").capitalize()
    empty = Pairing(name, title, "score", "grade", True, margin, items=0)
    none = (None,) * len(prepared.items)
    ours, theirs = (side.metrics[name].values if name in side.metrics else none for side in (candidate, baseline))
    return _paired(empty, prepared.items, ours, theirs)


def _pair_preferences(prepared: PreparedSuite, preferences: Mapping[str, float]) -> Pairing:
    margin = prepared.suite.gate.margin_of(PREFERENCE)
    empty = Pairing(
        PREFERENCE, "Pairs won − lost", "score", "share", True, PREFERENCE_MARGIN if margin is None else margin, items=0
    )
    won = [preferences.get(item.id) for item in prepared.items]
    return _paired(empty, prepared.items, won, [None if value is None else 0.0 for value in won])


def _paired(
    empty: Pairing,
    items: Sequence[Item],
    candidate: Sequence[float | None],
    baseline: Sequence[float | None],
) -> Pairing:
    """The items that both sides have a value for."""
    both = _with_both(candidate, baseline)
    kept = [items[place] for place in both]

    def values(side: Sequence[float | None]) -> NDArray[np.float64]:
        return np.array([side[place] for place in both], np.float64)

    return replace(
        empty,
        items=len(both),
        candidate=values(candidate),
        baseline=values(baseline),
        clusters=clusters_of(kept),
    )


def _with_both(candidate: Sequence[float | None], baseline: Sequence[float | None]) -> list[int]:
    """The places of the items that both sides have a value for."""
    pairs = enumerate(zip(candidate, baseline, strict=True))
    return [place for place, values in pairs if values[0] is not None and values[1] is not None]
