"""What is shown of confusion matrices, wherever they are shown: picture, terminal, Markdown, HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.judging.results.judgement import Judgement
from edgetune.metrics.classification import UNPARSED, ClassificationMetrics


@dataclass(frozen=True)
class MatrixPanel:
    """One matrix and the title above it."""

    title: str
    metrics: ClassificationMetrics


def panels_of(judgement: Judgement) -> list[MatrixPanel]:
    """A judgement's matrices in reading order: baseline, if there is one, then candidate. Without labels, none."""
    return [
        MatrixPanel(f"{role}: {evaluation.name}", evaluation.classification)
        for role, evaluation in judgement.sides
        if evaluation.classification is not None
    ]


def shown_columns(panels: Sequence[MatrixPanel]) -> tuple[str, ...]:
    """The headings of the matrices' columns: the labels, and the unparsed column where any panel has such an item.

    All panels must have the same labels.
    """
    labels = panels[0].metrics.labels
    return (*labels, UNPARSED) if any(panel.metrics.unparsed for panel in panels) else labels
