"""The report folder: report.html and report.md for people, report.json with everything, junit.xml for CI."""

from __future__ import annotations

from pathlib import Path

from edgetune.judging.report.annotations import github_annotations
from edgetune.judging.report.document import report_document, report_lines
from edgetune.judging.report.html import report_html
from edgetune.judging.report.junit import report_junit
from edgetune.judging.report.markdown import report_markdown
from edgetune.judging.report.matrices import panels_of
from edgetune.judging.report.matrix_picture import draw_matrices
from edgetune.judging.results.judgement import Judgement
from edgetune.outputs import staged_folder
from edgetune.plots import can_draw

__all__ = ["github_annotations", "report_document", "report_html", "report_junit", "report_markdown", "write_report"]


def write_report(judgement: Judgement, folder: Path, *, force: bool = False) -> None:
    """Write the report folder, complete or not at all. Raises OutputError when it exists (without `force`).

    report.json, report.html, report.md and junit.xml; for task classify also the matrices as confusion.png, where
    matplotlib is installed.
    """
    with staged_folder(folder, force=force) as staged:
        with (staged / "report.json").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(report_lines(judgement))
        (staged / "report.html").write_text(report_html(judgement), encoding="utf-8")
        (staged / "report.md").write_text(report_markdown(judgement), encoding="utf-8")
        (staged / "junit.xml").write_bytes(report_junit(judgement))
        if (panels := panels_of(judgement)) and can_draw("confusion.png"):
            draw_matrices(panels, staged / "confusion.png")
