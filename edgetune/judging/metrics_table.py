"""The table of metrics as cells of text, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Callable

from edgetune.judging.evaluate import Evaluation
from edgetune.judging.judgement import Judgement
from edgetune.judging.wording import megabytes, percent, percent_range, points, points_range


def metrics_headings(judgement: Judgement) -> list[str]:
    """The column headings, the one of the metrics' names first."""
    return ["", "candidate"] if judgement.baseline is None else ["", "baseline", "candidate", "difference"]


def metrics_rows(judgement: Judgement) -> list[list[str]]:
    """One row per metric, with as many cells as `metrics_headings`. Differences are in points."""
    evaluations = [judgement.candidate] if judgement.baseline is None else [judgement.baseline, judgement.candidate]
    verdict = judgement.verdict

    def scores(name: str, values: list[float]) -> list[str]:
        difference = [points(values[1] - values[0])] if len(values) == 2 else []
        return [name, *(percent(value) for value in values), *difference]

    def facts(name: str, describe: Callable[[Evaluation], str], difference: str = "") -> list[str]:
        return [name, *(describe(e) for e in evaluations), *([difference] if len(evaluations) == 2 else [])]

    rows = [
        scores("accuracy", [e.metrics.accuracy for e in evaluations]),
        facts(
            f"  {judgement.confidence * 100:g} % interval",
            lambda e: percent_range(judgement.accuracy_interval(e)),
            "" if verdict is None else points_range(verdict.interval),
        ),
        scores("macro-F1", [e.metrics.macro_f1 for e in evaluations]),
    ]
    for place, label in enumerate(judgement.suite.labels):
        measured = [e.metrics.per_label[place] for e in evaluations]
        rows += [
            scores(f"{label}: precision", [metrics.precision for metrics in measured]),
            scores(f"{label}: recall", [metrics.recall for metrics in measured]),
            scores(f"{label}: F1", [metrics.f1 for metrics in measured]),
        ]
    return [
        *rows,
        facts("unparsed items", lambda e: str(e.metrics.unparsed)),
        facts("file size", lambda e: megabytes(e.size_bytes)),
        facts("seconds per item", lambda e: f"{e.seconds / e.metrics.items:.3f}"),
    ]
