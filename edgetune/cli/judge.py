"""`edgetune judge`: measure a model on a suite, and decide whether it may replace its baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetune import console
from edgetune.cli.options import ForceOption, JsonOption


def judge(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of a suite that ships.")],
    *,
    model: Annotated[Path, typer.Option("--model", metavar="FILE", help="The GGUF file to judge.")],
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="FILE",
            help="What it may replace: a GGUF file, or the report.json of an earlier judgement of it.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write report.json, report.md and confusion.png there.")
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; the physical cores by default.")
    ] = None,
) -> None:
    """Judge a model against a baseline: exit code 0 passed, 1 a regression, 3 too few items to tell."""
    console.configure(json_mode=json)
    from edgetune.judging.confusion import panels_of
    from edgetune.judging.report import report_document
    from edgetune.judging.run import judge_model
    from edgetune.judging.suite import load_suite
    from edgetune.judging.terminal import render_matrices, render_metrics, render_verdict

    judgement = judge_model(load_suite(suite), model, baseline, out, force=force, threads=threads)
    console.result(render_metrics(judgement))
    console.result(render_matrices(panels_of(judgement)))
    console.result(render_verdict(judgement.verdict))
    console.document(report_document(judgement))
    if out is not None:
        console.note(f"report: {out / 'report.md'}")
    raise typer.Exit(judgement.exit_code)
