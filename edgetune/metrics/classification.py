"""How well labels were predicted. A prediction of None is one that could not be read: wrong, and counted on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    @property
    def macro_precision(self) -> float:
        """Plain mean of the labels' precisions."""
        return sum(label.precision for label in self.per_label) / len(self.per_label)

    @property
    def macro_recall(self) -> float:
        """Plain mean of the labels' recalls."""
        return sum(label.recall for label in self.per_label) / len(self.per_label)


def measure_classification(
    gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]
) -> ClassificationMetrics:
    """Measure predictions against gold labels with scikit-learn.

    Macro averages are plain means over `labels`; a label that neither gold nor prediction ever names counts as 0. The
    weighted F1 weighs each label with its support.
    Raises ValueError without items, when the lists differ in length, or for a label outside `labels`.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    if len(gold) != len(predicted) or not gold:
        raise ValueError(f"{len(gold)} gold labels and {len(predicted)} predictions cannot be compared")
    strangers = {*gold, *(label for label in predicted if label is not None)} - set(labels)
    if strangers:
        raise ValueError(f"labels outside the known ones: {', '.join(sorted(strangers))}")

    # Numbers instead of names, so that no label can be mistaken for the unparsed class.
    number = {label: place for place, label in enumerate(labels)}
    unparsed = len(labels)
    true = [number[label] for label in gold]
    guess = [unparsed if label is None else number[label] for label in predicted]
    places = list(range(len(labels)))
    scores = precision_recall_fscore_support(true, guess, labels=places, zero_division=0)
    confusion = confusion_matrix(true, guess, labels=[*places, unparsed])[:-1]
    right = sum(a == b for a, b in zip(true, guess, strict=True))
    return ClassificationMetrics(
        items=len(gold),
        right=right,
        unparsed=guess.count(unparsed),
        accuracy=right / len(gold),
        macro_f1=float(scores[2].mean()),
        weighted_f1=float(scores[2] @ scores[3]) / len(gold),
        labels=tuple(labels),
        per_label=tuple(
            LabelMetrics(float(precision), float(recall), float(f1), int(support))
            for precision, recall, f1, support in zip(*scores, strict=True)
        ),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )
