"""Answers of an evaluation -> its metrics, by the names that they have in metrics.jsonl and summary.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgetune import events
from edgetune.errors import DataError
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

    A further metric that cannot be computed is left out, with a warning.
    """
    names = METRICS_OF_TASK[task] | {f"eval_{name}": name for name in further}
    values = {}
    for key, name in names.items():
        try:
            values[key] = METRICS[name].compute(samples).value
        except DataError as problem:
            if name not in further:
                raise
            # A training must not lose its result by it.
            events.warn(f"{problem}; this evaluation continues without it")
    details: dict[str, Any] = {"items": len(samples)} | {names[key]: value for key, value in values.items()}
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
