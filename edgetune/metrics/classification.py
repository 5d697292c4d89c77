"""How well labels were predicted. A prediction of None could not be read: it is wrong, and counted by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgetune.metrics.aggregates import (
    Aggregate,
    divided,
    f1_over_labels,
    precision_over_labels,
    recall_over_labels,
    value_of,
)
from edgetune.metrics.metric import Formula, Metric, MetricResult, by_item
from edgetune.metrics.samples import Samples

UNPARSED = "unparsed"
"""Heading of the confusion matrix's last column."""


@dataclass(frozen=True)
class LabelMetrics:
    """Precision, recall and F1 of one label, from 0 to 1 (0 where undefined); support counts the items that have it."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ClassificationMetrics:
    """One model on all items.

    `confusion[i][j]` counts the items of label i that were predicted as label j, in the order of `labels`; each row's
    last column, `confusion[i][len(labels)]`, counts the unparsed ones.
    """

    items: int
    right: int
    unparsed: int
    accuracy: float
    macro_f1: float
    weighted_f1: float
    labels: tuple[str, ...]
    per_label: tuple[LabelMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]


def classification_metrics(
    gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]
) -> ClassificationMetrics:
    """The figures and the confusion matrix of predicted labels.

    Macro averages are plain means over `labels`; a label that never occurs counts as 0. The
    weighted F1 weighs each label with its support.
    Raises ValueError without items, when the lists differ in length, or for a label outside `labels`.
    """
    if len(gold) != len(predicted) or not gold:
        raise ValueError(f"{len(gold)} gold labels and {len(predicted)} predictions cannot be compared")
    strangers = {*gold, *(label for label in predicted if label is not None)} - set(labels)
    if strangers:
        raise ValueError(f"labels outside the known ones: {', '.join(sorted(strangers))}")

    number: dict[str | None, int] = {label: place for place, label in enumerate((*labels, None))}
    confusion = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for true, guess in zip(gold, predicted, strict=True):
        confusion[number[true], number[guess]] += 1
    both, support, guessed = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)[:-1]
    precision, recall, f1 = divided(both, guessed), divided(both, support), divided(2 * both, support + guessed)
    return ClassificationMetrics(
        items=len(gold),
        right=int(both.sum()),
        unparsed=int(confusion[:, -1].sum()),
        accuracy=float(both.sum() / len(gold)),
        macro_f1=float(f1.mean()),
        weighted_f1=float(f1 @ support / len(gold)),
        labels=tuple(labels),
        per_label=tuple(
            LabelMetrics(float(precision[place]), float(recall[place]), float(f1[place]), int(support[place]))
            for place in range(len(labels))
        ),
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def _over_labels(metric: Callable[[Sequence[str], Sequence[str | None], Sequence[str]], Aggregate]) -> Formula:
    """The formula of a metric of right labels, predicted ones and all labels."""

    def formula(samples: Samples) -> MetricResult:
        aggregate = metric(samples.column("gold"), samples.column("predicted"), samples.labels)
        return MetricResult(value_of(aggregate, len(samples)), (), aggregate)

    return formula


def _of_labels(name: str, title: str, formula: Formula, labels: str) -> Metric:
    return Metric(
        name,
        title,
        formula,
        kind="aggregate",
        needs=("gold",),
        tasks=("classify",),
        details={"labels": labels},
    )


ACCURACY = Metric(
    "accuracy",
    "Accuracy",
    by_item(lambda sample: sample.predicted == sample.gold),
    kind="accuracy",
    needs=("gold",),
    tasks=("classify",),
    details={"unparsed": "an answer that names no label, or several, is wrong"},
)

MACRO_F1 = _of_labels(
    "macro_f1",
    "Macro-F1",
    _over_labels(partial(f1_over_labels, weighted=False)),
    "plain mean over all labels of the suite; a label that never occurs counts as 0",
)

WEIGHTED_F1 = _of_labels(
    "weighted_f1",
    "Weighted F1",
    _over_labels(partial(f1_over_labels, weighted=True)),
    "mean over the labels by how many items have each",
)

MACRO_PRECISION = _of_labels(
    "macro_precision",
    "Macro precision",
    _over_labels(precision_over_labels),
    "plain mean over all labels of the suite; a label that no answer names counts as 0",
)

MACRO_RECALL = _of_labels(
    "macro_recall",
    "Macro recall",
    _over_labels(recall_over_labels),
    "plain mean over all labels of the suite; a label that no item has counts as 0",
)
