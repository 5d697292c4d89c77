"""Items and a model's answers -> the samples that metrics take."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.errors import DataError
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.classification import ClassificationMetrics, classification_metrics
from edgetune.metrics.samples import Sample, Samples


def samples_of(items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> Samples:
    """The answers to these items, in their order."""
    samples = [
        Sample(
            id=item.id,
            text=answer.text,
            answered=answer.unanswered is None,
            references=item.references,
            gold=item.gold,
            predicted=answer.predicted,
            generated_tokens=answer.generated_tokens,
            tokens_per_second=answer.tokens_per_second,
            first_token_seconds=answer.first_token_seconds,
            nll_nats=answer.nll_nats,
            nll_tokens=answer.nll_tokens,
            nll_bytes=len(item.text.encode())
            if answer.nll_bytes is None and suite.task == "perplexity"
            else answer.nll_bytes,
        )
        for item, answer in zip(items, answers, strict=True)
    ]
    schema = suite.json_schema if isinstance(suite.json_schema, dict) else None
    return Samples(tuple(samples), tuple(suite.labels), schema)


def confusion_of(samples: Samples) -> ClassificationMetrics:
    """Precision, recall and F1 of each label and the confusion matrix, in the order of the suite's labels.

    Raises DataError for an item without a gold label, or an answer with a label that the suite has not.
    """
    samples.check(["gold"])
    for sample in samples:
        if sample.predicted is not None and sample.predicted not in samples.labels:
            raise DataError(
                f"the answer to item {sample.id} has the label {sample.predicted!r}, which the suite has not"
            )
    return classification_metrics(samples.column("gold"), samples.column("predicted"), samples.labels)


def check_same_tokens(candidate: Sequence[Answer], baseline: Sequence[Answer]) -> None:
    """Raise DataError, naming bits_per_byte, when two models split an item's text into different numbers of tokens.

    The answers are to the same items in the same order.
    """
    for left, right in zip(candidate, baseline, strict=True):
        if left.nll_tokens != right.nll_tokens:
            raise DataError(
                f"the two models split the texts into different tokens ({left.nll_tokens} and {right.nll_tokens} in "
                f"item {left.id}), so their perplexities cannot be compared",
                remedy="compare bits_per_byte instead (gate: {metric: bits_per_byte})",
            )
