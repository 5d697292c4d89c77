"""Answers of an evaluation -> its metrics, by the names that they have in metrics.jsonl and summary.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgetune.metrics.classification import classification_metrics
from edgetune.metrics.registry import METRICS
from edgetune.metrics.rouge import ROUGE_NAMES
from edgetune.metrics.samples import Samples

METRICS_OF_TASK: dict[str, dict[str, str]] = {
    "classify": {
        "eval_accuracy": "accuracy",
        "eval_macro_f1": "macro_f1",
        "eval_precision": "macro_precision",
        "eval_recall": "macro_recall",
    },
    "summarize": {f"eval_{name}": name for name in ROUGE_NAMES},
}
"""What every evaluation of a task measures: the names in metrics.jsonl, and the metrics."""


@dataclass(frozen=True)
class Scores:
    """What one evaluation gave beside the loss."""

    values: dict[str, float]
    """Name in metrics.jsonl -> value."""
    details: dict[str, Any]
    """What only the summary holds, in JSON's types: of labels the confusion matrix and the figures of each."""


def score(task: str, samples: Samples, further: Sequence[str] = ()) -> Scores:
    """The task's own metrics and `further` ones, in the units of their values: shares from 0 to 1, ROUGE to 100.

    Raises DataError as a metric does.
    """
    names = METRICS_OF_TASK[task] | {f"eval_{name}": name for name in further}
    values = {key: METRICS[name].compute(samples).value for key, name in names.items()}
    details: dict[str, Any] = {name: values[key] for key, name in names.items()} | {"items": len(samples)}
    if task == "classify":
        found = classification_metrics(samples.column("gold"), samples.column("predicted"), samples.labels)
        details |= {
            "labels": list(samples.labels),
            "per_label": {
                label: asdict(figures) for label, figures in zip(samples.labels, found.per_label, strict=True)
            },
            # Every answer is one of the labels, so the column of unreadable ones is left out.
            "confusion": [list(row[:-1]) for row in found.confusion],
        }
    return Scores(values, details)
