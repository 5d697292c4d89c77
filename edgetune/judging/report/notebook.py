"""How a notebook shows a judgement: the verdict, the metrics, and the confusion matrices as a picture."""

from __future__ import annotations

from io import BytesIO

from rich.console import Group

from edgetune.judging.report.matrices import panels_of
from edgetune.judging.report.matrix_picture import draw_matrices
from edgetune.judging.report.terminal_report import render_matrices, render_metrics, render_verdict
from edgetune.judging.results.judgement import Judgement
from edgetune.notebook_view import picture_html, terminal_html


def judgement_html(judgement: Judgement) -> str:
    """HTML for `_repr_html_`; without matplotlib the matrices are text."""
    found = terminal_html(Group(render_verdict(judgement.verdict), render_metrics(judgement)))
    panels = panels_of(judgement)
    if not panels:
        return found
    try:
        picture = BytesIO()
        draw_matrices(panels, picture)
        return found + picture_html(picture.getvalue(), "confusion matrices")
    except ModuleNotFoundError:
        return found + terminal_html(render_matrices(panels))
