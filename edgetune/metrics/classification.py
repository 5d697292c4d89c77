"""How well labels were predicted. A prediction of None could not be read: it is wrong, and counted by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetune.metrics.aggregates import Floats, SumMetric, value_of
from edgetune.metrics.metric import Metric, MetricResult, by_item
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
    precision, recall, f1 = _divided(both, guessed), _divided(both, support), _divided(2 * both, support + guessed)
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


def _divided(numerators: NDArray, denominators: NDArray) -> Floats:
    """Quotients; 0 where the denominator is 0."""
    return np.divide(numerators, denominators, out=np.zeros(denominators.shape), where=denominators > 0)


def _weighted_f1(support: Floats, guessed: Floats, both: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return (_divided(2 * both, support + guessed) * support).sum(axis=1) / support.sum(axis=1)


def _over_labels(name: str, title: str, combine: Callable[[Floats, Floats, Floats], Floats], labels: str) -> Metric:
    """A metric that `combine` makes of how many items have each label, are given it, and both: (b, l) each -> (b,).

    As in scikit-learn with zero_division=0. A prediction of None, or of an unknown label, belongs to no label.
    """

    def formula(samples: Samples) -> MetricResult:
        none = len(samples.labels)
        number: dict[str | None, int] = {label: place for place, label in enumerate(samples.labels)}
        columns = (samples.column("gold"), samples.column("predicted"))
        true, given = (np.array([number.get(one, none) for one in column]) for column in columns)
        cells, kinds = np.unique(true * (none + 1) + given, return_inverse=True)
        marks = np.eye(none + 1)[:, :none]
        has, gets = marks[cells // (none + 1)], marks[cells % (none + 1)]
        aggregate = SumMetric(
            kinds.reshape(-1), np.hstack([has, gets, has * gets]), lambda sums: combine(*np.split(sums, 3, axis=1))
        )
        return MetricResult(value_of(aggregate, len(samples)), (), aggregate)

    return Metric(name, title, formula, "aggregate", needs=("gold",), tasks=("classify",), details={"labels": labels})


ACCURACY = Metric(
    "accuracy",
    "Accuracy",
    by_item(lambda sample: sample.predicted == sample.gold),
    kind="accuracy",
    needs=("gold",),
    tasks=("classify",),
    details={"unparsed": "an answer that names no label, or several, is wrong"},
)

MACRO_F1 = _over_labels(
    "macro_f1",
    "Macro-F1",
    lambda support, guessed, both: _divided(2 * both, support + guessed).mean(axis=1),
    "plain mean over all labels of the suite; a label that never occurs counts as 0",
)

WEIGHTED_F1 = _over_labels(
    "weighted_f1", "Weighted F1", _weighted_f1, "mean over the labels by how many items have each"
)

MACRO_PRECISION = _over_labels(
    "macro_precision",
    "Macro precision",
    lambda _support, guessed, both: _divided(both, guessed).mean(axis=1),
    "plain mean over all labels of the suite; a label that no answer names counts as 0",
)

MACRO_RECALL = _over_labels(
    "macro_recall",
    "Macro recall",
    lambda support, _guessed, both: _divided(both, support).mean(axis=1),
    "plain mean over all labels of the suite; a label that no item has counts as 0",
)
