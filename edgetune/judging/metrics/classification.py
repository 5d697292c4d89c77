"""Right labels: the share of them, and F1 and recall over the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from edgetune.errors import DataError
from edgetune.judging.metrics.aggregates import f1_over_labels, mean_metric, recall_over_labels, value_of
from edgetune.judging.metrics.metric import Metric, MetricResult
from edgetune.judging.statistics.quantity import Aggregate
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.classification import ClassificationMetrics, measure_classification


def confusion_of(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> ClassificationMetrics:
    """Precision, recall and F1 of each label and the confusion matrix, in the order of the suite's labels.

    Raises DataError for an item without a gold label, or an answer with a label that the suite has not.
    """
    gold = _gold(items)
    predicted = [answer.predicted for answer in answers]
    for answer in answers:
        if answer.predicted is not None and answer.predicted not in suite.labels:
            raise DataError(
                f"the answer to item {answer.id} has the label {answer.predicted!r}, which the suite has not"
            )
    return measure_classification(gold, predicted, suite.labels)


def _gold(items: Sequence[Item]) -> list[str]:
    gold = [item.gold for item in items if item.gold is not None]
    if len(gold) < len(items):
        raise DataError(f"{len(items) - len(gold)} of {len(items)} items have no right label")
    return gold


def _accuracy(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    right = [float(answer.predicted == gold) for gold, answer in zip(_gold(items), answers, strict=True)]
    return mean_metric(right, "there is no item")


def _over_labels(
    metric: Callable[[Sequence[str], Sequence[str | None], Sequence[str]], Aggregate],
) -> Callable[[Sequence[Item], Sequence[Answer], Suite], MetricResult]:
    """The measure of a metric of right labels, predicted ones and all labels."""

    def compute(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
        aggregate = metric(_gold(items), [answer.predicted for answer in answers], suite.labels)
        return MetricResult(value_of(aggregate, len(items)), (), aggregate)

    return compute


ACCURACY = Metric(
    "accuracy",
    "Accuracy",
    kind="accuracy",
    unit="share",
    higher_is_better=True,
    default_margin=0.02,
    compute=_accuracy,
    tasks=("classify",),
    details={"unparsed": "an answer that names no label, or several, is wrong"},
)

MACRO_F1 = Metric(
    "macro_f1",
    "Macro-F1",
    kind="aggregate",
    unit="share",
    higher_is_better=True,
    default_margin=0.02,
    compute=_over_labels(partial(f1_over_labels, weighted=False)),
    tasks=("classify",),
    details={"labels": "plain mean over all labels of the suite; one that nobody names counts as 0"},
)

MACRO_RECALL = Metric(
    "macro_recall",
    "Macro recall",
    kind="aggregate",
    unit="share",
    higher_is_better=True,
    default_margin=0.02,
    compute=_over_labels(recall_over_labels),
    tasks=("classify",),
    details={"labels": "plain mean over all labels of the suite; one that no item has counts as 0"},
)

WEIGHTED_F1 = Metric(
    "weighted_f1",
    "Weighted F1",
    kind="aggregate",
    unit="share",
    higher_is_better=True,
    default_margin=0.02,
    compute=_over_labels(partial(f1_over_labels, weighted=True)),
    tasks=("classify",),
    details={"labels": "mean over the labels by how many items have each"},
)
