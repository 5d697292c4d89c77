"""The table of metrics as cells of text, for the terminal and for reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgetune.judging.gate.comparison import Comparison
from edgetune.judging.gate.wording import (
    difference_text,
    megabytes,
    percent,
    points,
    range_text,
    value_range_text,
    value_text,
)
from edgetune.judging.results.judgement import Evaluation, Judgement
from edgetune.judging.statistics.quantity import ComparedMetric, Difference
from edgetune.metrics.classification import ClassificationMetrics


def item_value_text(value: float | None, metric: ComparedMetric) -> str:
    """One item's value: in words where it has any (`right`), a grade as 4.5, `–` for an item without one."""
    if value is None:
        return "–"
    if metric.kind == "accuracy" and value in (0, 1):
        return "right" if value else "wrong"
    return f"{value:.3g}" if metric.unit == "grade" else value_text(value, metric.unit)


def metrics_headings(judgement: Judgement) -> list[str]:
    """The column headings, the one of the metrics' names first."""
    return ["", "candidate"] if judgement.baseline is None else ["", "baseline", "candidate", "difference"]


def metrics_rows(judgement: Judgement) -> list[list[str]]:
    """One row per metric, with as many cells as `metrics_headings`. Each metric's interval has a row below it.

    Differences are candidate - baseline: of shares in points, of perplexity in percent, of others as they are. The
    metrics of each label are in `label_rows`.
    """
    candidate, evaluations = judgement.candidate, [side for _, side in judgement.sides]
    comparisons = judgement.verdict.comparisons if judgement.verdict else ()
    compared: dict[str, Comparison | Difference] = {one.metric: one for one in judgement.differences}
    compared |= {one.metric: one for one in comparisons}
    rows = []
    for name in dict.fromkeys((*candidate.metrics, *compared)):
        rows += _metric_rows(judgement.compared[name], evaluations, compared.get(name), judgement.confidence)
    if metrics := _classifications(judgement):
        if "macro_f1" not in candidate.metrics:
            rows.append(_share_row("Macro-F1", [one.macro_f1 for one in metrics]))
        rows.append(["Unparsed items", *(f"{one.unparsed:,}" for one in metrics), *_blank(evaluations)])
    facts: list[tuple[str, Callable[[Evaluation], str]]] = [
        ("Unanswered items", lambda e: f"{len(e.unanswered):,}" if e.unanswered else ""),
        ("File size", lambda e: "" if e.size_bytes is None else megabytes(e.size_bytes)),
        ("Seconds per item", lambda e: "" if e.seconds is None else f"{e.seconds / max(1, len(e.answers)):.3f}"),
    ]
    for title, describe in facts:
        cells = [describe(evaluation) for evaluation in evaluations]
        if any(cells):
            rows.append([title, *cells, *_blank(evaluations)])
    return rows


def label_rows(judgement: Judgement) -> list[tuple[str, list[list[str]]]]:
    """Each label of a classification with its rows, like those of `metrics_rows`: precision, recall and F1."""
    metrics = _classifications(judgement)
    if not metrics:
        return []
    return [
        (
            label,
            [
                _share_row("precision", [one.per_label[place].precision for one in metrics]),
                _share_row("recall", [one.per_label[place].recall for one in metrics]),
                _share_row("F1", [one.per_label[place].f1 for one in metrics]),
            ],
        )
        for place, label in enumerate(metrics[0].labels)
    ]


def labels_to_look_at(judgement: Judgement, count: int) -> list[str]:
    """The labels whose F1 fell most from baseline to candidate, or is lowest where there is no baseline; first the
    worst. Without labels, none."""
    metrics = _classifications(judgement)
    if not metrics:
        return []
    f1 = [[label.f1 for label in one.per_label] for one in metrics]
    worth = [values[-1] - values[0] if len(metrics) == 2 else values[0] for values in zip(*f1, strict=True)]
    return [metrics[0].labels[place] for place in sorted(range(len(worth)), key=worth.__getitem__)[:count]]


def _classifications(judgement: Judgement) -> list[ClassificationMetrics]:
    """Of all sides, or none where a side has none."""
    metrics = [side.classification for _, side in judgement.sides if side.classification is not None]
    return metrics if len(metrics) == len(judgement.sides) else []


def _metric_rows(
    metric: ComparedMetric,
    evaluations: Sequence[Evaluation],
    comparison: Comparison | Difference | None,
    confidence: float,
) -> list[list[str]]:
    sides = [evaluation.metrics.get(metric.name) for evaluation in evaluations]
    values = [one.value for one in sides if one is not None]
    if comparison is not None:
        change = difference_text(comparison.difference, metric.unit)
    else:
        change = difference_text(values[1] - values[0], metric.unit) if len(values) == 2 else ""
    cells = ["" if one is None else value_text(one.value, metric.unit) for one in sides]
    rows = [[metric.title, *cells, *([change] if len(evaluations) == 2 else [])]]
    intervals = [None if one is None else one.interval for one in sides]
    if comparison is not None or any(interval is not None for interval in intervals):
        ranges = ["" if interval is None else value_range_text(interval, metric.unit) for interval in intervals]
        change = "" if comparison is None else range_text(comparison.interval, metric.unit)
        rows.append([f"  {confidence * 100:g} % interval", *ranges, *([change] if len(evaluations) == 2 else [])])
    return rows


def _share_row(title: str, values: Sequence[float]) -> list[str]:
    change = [points(values[1] - values[0])] if len(values) == 2 else []
    return [title, *(percent(value) for value in values), *change]


def _blank(evaluations: Sequence[Evaluation]) -> list[str]:
    """The cell of the difference, where there is a column for it and no sense in one."""
    return [""] if len(evaluations) == 2 else []
