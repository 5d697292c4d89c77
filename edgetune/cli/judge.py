"""`edgetune judge`: compare a model with its baseline, calibrate a judge, and show two models' answers."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import edgetune
from edgetune import console, events
from edgetune.cli.default_command import DefaultCommandGroup
from edgetune.cli.options import ForceOption, JsonOption

app = typer.Typer(cls=DefaultCommandGroup, help="Judge a model against a baseline: metrics, judges, and a verdict.")


MODEL_HELP = (
    "A GGUF file, a run or model folder, a hub id, URL#MODEL of an OpenAI-compatible endpoint, or a file of outputs."
)
JudgesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--judge",
        metavar="JUDGE",
        help="Replace the suite's judges: a shipped judge, a YAML file, a .gguf file or URL#MODEL. Repeatable.",
    ),
]
MaxCostOption = Annotated[
    float | None, typer.Option("--max-cost", metavar="USD", min=0, help="Stop before the judges' costs exceed this.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads. (default: the physical cores)")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the estimated cost; send no requests to judges.")]
CacheOption = Annotated[bool, typer.Option("--no-cache", help="Do not read or write cached answers.")]


def run(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A shipped suite's name or a suite file.")],
    *,
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help=f"Candidate: {MODEL_HELP}")],
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", metavar="MODEL", help="Baseline: a model like --model, or report.json of an earlier run."
        ),
    ] = None,
    judges: JudgesOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write report.html, report.md, report.json and junit.xml to this folder."
        ),
    ] = None,
    inconclusive: Annotated[
        Literal["fail", "warn", "pass"],
        typer.Option("--inconclusive", help="Exit code for INCONCLUSIVE: fail 3, warn 0 with a warning, pass 0."),
    ] = "fail",
    dry_run: DryRunOption = False,
    max_cost: MaxCostOption = None,
    no_cache: CacheOption = False,
    threads: ThreadsOption = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Judge a model on a suite, and decide whether it can replace its baseline.

    Exit codes: 0 passed; 1 regression; 3 inconclusive, too few items (see --inconclusive); 4 the judge is invalid.

    To compare a judge with human votes: `edgetune judge calibrate --help`.

    To print the answers of two models side by side: `edgetune judge show --help`.
    """
    console.configure(json_mode=json)
    asked: dict[str, Any] = {"model": model, "baseline": baseline, "judge": judges or (), "max_cost": max_cost}
    asked |= {"cache": not no_cache, "threads": threads}
    if dry_run:
        ahead = edgetune.estimate_judging(suite, **asked)
        for estimate in ahead.judges:
            console.result(str(estimate))
        if not ahead.judges:
            console.result("no judge is needed: the suite has no rubric")
        if ahead.assumed:
            events.note(f"{ahead.assumed} answers are not generated yet; their maximum length is assumed")
        console.document(asdict(ahead))
        return
    judgement = edgetune.judge(suite, out=out, inconclusive=inconclusive, force=force, **asked)
    _show(judgement)
    if json:
        from edgetune.judging.report import report_document

        console.document(report_document(judgement))
    if out is not None:
        events.note(f"report: {out / 'report.html'}")
    raise typer.Exit(judgement.exit_code)


def _show(judgement: edgetune.Judgement) -> None:
    """Print the results, with the verdict last. In GitHub Actions, also print annotations."""
    from edgetune.judging.report import github_annotations
    from edgetune.judging.report.matrices import panels_of
    from edgetune.judging.report.terminal_report import render_judges, render_matrices, render_metrics, render_verdict
    from edgetune.judging.report.validity import was_judged

    console.result(render_metrics(judgement))
    if panels := panels_of(judgement):
        console.result(render_matrices(panels))
    if was_judged(judgement):
        console.result(render_judges(judgement))
    for note in judgement.notes:
        events.note(note)
    console.result(render_verdict(judgement.verdict))
    if judgement.tolerated and judgement.inconclusive == "warn":
        events.warn("the result is INCONCLUSIVE; the exit code is 0 because of --inconclusive warn")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in github_annotations(judgement):
            console.verbatim(line)


def show(
    first: Annotated[str, typer.Argument(metavar="A", help=MODEL_HELP)],
    second: Annotated[str, typer.Argument(metavar="B", help="The second model, given like A.")],
    *,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="TEXT", help="Ask this prompt. Repeatable.")
    ] = None,
    suite: Annotated[
        str, typer.Option("--suite", metavar="SUITE", help="Take the prompts from this suite if there is no --prompt.")
    ] = "first-look",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use only the suite's first N prompts.")] = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Print the answers of two models to the same prompts, side by side."""
    console.configure(json_mode=json)
    shown = edgetune.side_by_side(first, second, prompt=prompts or (), suite=suite, limit=limit, threads=threads)
    from edgetune.judging.show import render_side_by_side

    console.result(render_side_by_side(shown, (first, second), console.width()))
    console.document({"a": first, "b": second, "questions": [asdict(pair) for pair in shown]})


def calibrate(
    judge: Annotated[
        str, typer.Argument(metavar="JUDGE", help="A shipped judge, a YAML file, a .gguf file or URL#MODEL.")
    ],
    *,
    data: Annotated[Path, typer.Option("--on", metavar="DATA", help="Human votes: a file or a folder of files.")],
    rubric: Annotated[
        str, typer.Option("--rubric", metavar="RUBRIC", help="The rubric that the judge applies.")
    ] = "answer-quality",
    grading: Annotated[
        Literal["pairwise", "pointwise"],
        typer.Option("--grading", help="pairwise compares two answers in both orders; pointwise grades each alone."),
    ] = "pairwise",
    min_kappa: Annotated[
        float,
        typer.Option("--min-kappa", min=0, max=1, help="Minimum agreement with the votes (Cohen's kappa) to pass."),
    ] = 0.4,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the certificate to this file.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use N items, drawn with --seed.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed for --limit.")] = 0,
    dry_run: DryRunOption = False,
    max_cost: MaxCostOption = None,
    no_cache: CacheOption = False,
    threads: ThreadsOption = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Compare a judge with human votes, and write a certificate that a gate can require.

    Exit codes: 0 the judge passed calibration; 4 it failed.
    """
    console.configure(json_mode=json)
    asked: dict[str, Any] = {"on": data, "rubric": rubric, "grading": grading, "limit": limit, "seed": seed}
    if dry_run:
        estimate = edgetune.estimate_calibration(judge, cache=not no_cache, **asked)
        console.result(str(estimate))
        console.document(asdict(estimate))
        return
    asked |= {"min_kappa": min_kappa, "max_cost": max_cost, "cache": not no_cache, "threads": threads}
    calibration = edgetune.calibrate(judge, out=out, force=force, **asked)
    from edgetune.judging.calibration.certificate import certificate_document
    from edgetune.judging.calibration.figures_table import render_calibration

    console.result(render_calibration(calibration))
    console.document(certificate_document(calibration))
    if out is not None:
        events.note(f"certificate: {out}")
    raise typer.Exit(0 if calibration.passed else 4)
