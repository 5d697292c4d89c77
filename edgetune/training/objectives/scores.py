"""Answers of an evaluation -> its metrics, by the names that they have in metrics.jsonl and summary.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgetune.data.example import Example
from edgetune.metrics.classification import measure_classification
from edgetune.metrics.rouge import measure_rouge


@dataclass(frozen=True)
class Scores:
    """What one evaluation gave beside the loss."""

    values: dict[str, float]
    """Name in metrics.jsonl -> value."""
    details: dict[str, Any]
    """What only the summary holds, in JSON's types: of labels the confusion matrix and the figures of each."""


def score_labels(examples: Sequence[Example], predicted: Sequence[str], labels: Sequence[str]) -> Scores:
    """Accuracy, and precision, recall and F1 as means over the labels, from 0 to 1."""
    gold = [str(example.label) for example in examples]
    metrics = measure_classification(gold, predicted, labels)
    values = {
        "eval_accuracy": metrics.accuracy,
        "eval_macro_f1": metrics.macro_f1,
        "eval_precision": metrics.macro_precision,
        "eval_recall": metrics.macro_recall,
    }
    details = {
        "items": metrics.items,
        "accuracy": metrics.accuracy,
        "macro_f1": metrics.macro_f1,
        "macro_precision": metrics.macro_precision,
        "macro_recall": metrics.macro_recall,
        "labels": list(labels),
        "per_label": {label: asdict(scores) for label, scores in zip(labels, metrics.per_label, strict=True)},
        # Every answer is one of the labels, so the column of unreadable ones is left out.
        "confusion": [list(row[:-1]) for row in metrics.confusion],
    }
    return Scores(values, details)


def score_summaries(examples: Sequence[Example], summaries: Sequence[str]) -> Scores:
    """ROUGE F1, from 0 to 100."""
    rouge = measure_rouge(summaries, [example.references for example in examples])
    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    return Scores({f"eval_{name}": getattr(rouge, name) for name in names}, asdict(rouge))
