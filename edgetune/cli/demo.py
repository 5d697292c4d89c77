"""`edgetune demo`: the whole workflow on the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetune
from edgetune import console
from edgetune.cli.options import ForceOption, JsonOption


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The output folder.")] = Path("demo"),
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Fine-tune, merge, export, judge and chat on the embedded model, in a few minutes on a CPU."""
    console.configure(json_mode=json)
    report = edgetune.demo(out=out, force=force)
    _show(report)
    console.document(_describe(report))


def _show(report: edgetune.DemoReport) -> None:
    from rich.text import Text

    from edgetune.judging.report.matrices import panels_of
    from edgetune.judging.report.terminal_report import render_matrices, render_metrics, render_verdict

    judgement = report.judgement
    console.result("")
    console.result(render_matrices(panels_of(judgement)))
    console.result(render_metrics(judgement))
    console.result(render_verdict(judgement.verdict))
    console.result("")
    console.result(Text(f"› {report.question}\n{report.answer}\n"))
    console.result("size   " + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in report.files.items()))
    steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report.seconds.items())
    console.result(f"time   {steps}; total {sum(report.seconds.values()):.0f} s")
    console.result(f"report {report.folder / 'report' / 'report.html'}\n")
    console.result(f"next:  edgetune chat {report.model}")


def _describe(report: edgetune.DemoReport) -> dict[str, object]:
    from edgetune.judging.report import report_document

    return {
        "folder": str(report.folder),
        "training": report.run.summary.model_dump(),
        "judgement": report_document(report.judgement),
        "question": report.question,
        "answer": report.answer,
        "files": report.files,
        "seconds": report.seconds,
    }
