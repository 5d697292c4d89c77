"""A suite made ready: items, metrics, rubric and judges; mistakes are refused before any model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgetune.errors import DataError, RecipeError, UsageError
from edgetune.judging.grading.prompt import PROMPT_VERSION
from edgetune.judging.metrics.choice import default_metrics, find_metrics, main_metric
from edgetune.judging.statistics.quantity import ComparedMetric
from edgetune.judging.suites.identity import hash_value
from edgetune.judging.suites.items import Item, hash_items, read_items
from edgetune.judging.suites.judge_file import Judge, judge_hash, load_judge
from edgetune.judging.suites.rubric import Rubric, load_rubric
from edgetune.judging.suites.suite import Gate, Suite
from edgetune.metrics.metric import Metric
from edgetune.metrics.registry import METRICS
from edgetune.recipe.yaml_input import nearest
from edgetune.runtime.labels.reading import LABEL_READING

LABEL_READING_PART = "reading of labels"
"""The hash of the rules by which labels are read. Stored answers are read again, but for those of a file of outputs."""

PREFERENCE = "preference"
"""The metric of pairwise judging: the mean over items of +1 (candidate preferred), 0 (tie) and -1."""

GRADE_MARGIN = 0.2
"""The smallest loss that matters of a criterion, in grades of the judge's scale, unless the suite says otherwise."""

PREFERENCE_MARGIN = 0.1
"""The same of pairs won minus pairs lost, as a share of all pairs."""

_SPEED = ("tokens_per_second", "first_token_seconds")
"""Metrics that a suite need not name: they are shown where speed was measured."""


@dataclass(frozen=True)
class PreparedSuite:
    """What is asked of every model. `metrics` are the names of the task's metrics that are computed.

    `compared` holds by name every metric that a model may have: these, its speed, the rubric's criteria, `preference`.
    """

    suite: Suite
    items: tuple[Item, ...]
    metrics: tuple[str, ...]
    gated: tuple[str, ...]
    """Names of the metrics that the gate compares."""
    compared: Mapping[str, ComparedMetric]
    rubric: Rubric | None
    judges: tuple[Judge, ...]

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each part that shapes the results. Two evaluations are comparable when these are equal."""
        hashes = {**self.suite.hashes(), "data": hash_items(self.items)}
        if self.suite.task == "classify":
            hashes[LABEL_READING_PART] = hash_value(LABEL_READING)
        if self.rubric is not None:
            judges = sorted(judge_hash(judge) for judge in self.judges)
            hashes |= {"rubric": hash_value([PROMPT_VERSION, self.rubric.sha256()]), "judge": hash_value(judges)}
        return hashes

    @property
    def criteria(self) -> tuple[str, ...]:
        """The rubric's criteria where answers are graded one by one; nothing otherwise."""
        if self.rubric is None or self.suite.grading != "pointwise":
            return ()
        return tuple(self.rubric.criteria)


def prepare(suite: Suite, judges: Sequence[str] = (), *, compared: bool = True) -> PreparedSuite:
    """Read the data, find the metrics, and load rubric and judges; `judges` replace the suite's own.

    The gate needs a metric only if models are `compared`.

    Raises RecipeError, DataError, UsageError or ModelError, naming what cannot be used.
    """
    items = read_items(suite)
    named = tuple(judges) or suite.judges
    rubric = None if suite.rubric is None else load_rubric(suite.rubric)
    if rubric is not None and not named:
        raise UsageError(
            f"suite {suite.name} grades by the rubric {rubric.name}, and no judge is named",
            remedy="name one with --judge: a shipped judge, a YAML file, a .gguf file or URL#MODEL",
        )
    if rubric is None and named:
        raise UsageError(
            f"suite {suite.name} has no rubric, so there is nothing for a judge to grade",
            remedy="leave --judge out, or give the suite one, such as rubric: answer-quality",
        )
    loaded = tuple(load_judge(reference) for reference in named)
    if len({judge.name for judge in loaded}) != len(loaded):
        raise UsageError("two judges of the panel have the same name", remedy="give each a name of its own")
    judged = _judged_metrics(suite, rubric)
    metrics = tuple(suite.metrics) or default_metrics(suite, items)
    gated = suite.gate.metrics or tuple(judged) or ((main_metric(suite, items),) if compared else ())
    _check_gated(suite, gated, judged)
    metrics += tuple(name for name in gated if name not in judged and name not in metrics)
    speed = () if suite.metrics else (name for name in _SPEED if suite.task in METRICS[name].tasks)
    of_task = find_metrics([*metrics, *(name for name in speed if name not in metrics)], suite)
    known = {metric.name: compared_metric(metric, suite.gate) for metric in of_task}
    for name in known.keys() & judged.keys():
        raise RecipeError(
            f"{name} is both a metric of the suite and a criterion of its rubric",
            where=f"suite {suite.name}",
            remedy="rename the criterion, or leave the metric out with metrics:",
        )
    return PreparedSuite(suite, items, metrics, gated, known | judged, rubric, loaded)


def compared_metric(metric: Metric, gate: Gate) -> ComparedMetric:
    """A metric of the task as it is compared."""
    margin = None if metric.default_margin is None else gate.margin_of(metric.name, metric.default_margin)
    facts = (metric.name, metric.title, metric.kind, metric.unit, metric.higher_is_better)
    return ComparedMetric(*facts, margin, task_metric=metric)


def criterion_metric(name: str, gate: Gate) -> ComparedMetric:
    """A criterion of a rubric as it is compared."""
    title = name.replace("_", " ").capitalize()
    return ComparedMetric(name, title, "score", "grade", True, gate.margin_of(name, GRADE_MARGIN))


def preference_metric(gate: Gate) -> ComparedMetric:
    """The preference of judges as it is compared."""
    margin = gate.margin_of(PREFERENCE, PREFERENCE_MARGIN)
    return ComparedMetric(PREFERENCE, "Pairs won − lost", "score", "share", True, margin, of_pairs=True)


def check_comparable(prepared: PreparedSuite) -> None:
    """Raise DataError where there are too few items, or clusters, for a comparison."""
    what, count = "item", len(prepared.items)
    if prepared.suite.cluster is not None:
        what, count = f"cluster (column {prepared.suite.cluster})", len({item.cluster for item in prepared.items})
    if count < 2:
        raise DataError(
            f"suite {prepared.suite.name} has {count} {what}, and a comparison needs at least 2",
            where=prepared.suite.data[0].source,
        )


def _judged_metrics(suite: Suite, rubric: Rubric | None) -> dict[str, ComparedMetric]:
    if rubric is None:
        return {}
    if suite.grading == "pairwise":
        return {PREFERENCE: preference_metric(suite.gate)}
    return {name: criterion_metric(name, suite.gate) for name in rubric.criteria}


def _check_gated(suite: Suite, gated: Sequence[str], judged: Mapping[str, ComparedMetric]) -> None:
    """Raise RecipeError for a metric that the gate cannot compare."""
    for name in gated:
        metric = judged.get(name) or (compared_metric(METRICS[name], suite.gate) if name in METRICS else None)
        if metric is None or metric.margin is None:
            known = [*judged, *(other for other, one in METRICS.items() if one.default_margin is not None)]
            raise RecipeError(
                f"gate.metric names {name}{nearest(name, known)}, which cannot be compared here; known are "
                f"{', '.join(known)}",
                where=f"suite {suite.name}",
            )
        if metric.unit == "share" and metric.margin >= 1:
            raise RecipeError(
                f"gate.margin is {metric.margin:g}, and {name} is a share; it must be less than 1 (0.02 is 2 points)",
                where=f"suite {suite.name}",
            )
    strangers = set(suite.gate.margin) - set(gated) if isinstance(suite.gate.margin, dict) else set()
    if strangers:
        raise RecipeError(
            f"gate.margin is given for {', '.join(sorted(strangers))}, which gate.metric does not compare",
            where=f"suite {suite.name}",
            remedy=f"the gate compares {', '.join(gated)}",
        )
