"""`edgetune train`: a recipe becomes a run directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgetune import console
from edgetune.cli.options import ForceOption, JsonOption


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", metavar="KEY=VALUE", help="Change a value: -s train.learning_rate=1e-4. Repeatable."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Run directory. (default: runs/NAME)")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    count: Annotated[
        int | None,
        typer.Option("--processes", metavar="N", help="Train with N processes on this machine, one per GPU at most."),
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Fine-tune a base model by a recipe."""
    console.configure(json_mode=json)
    from edgetune.recipe.load import load_recipe
    from edgetune.train import processes

    loaded = load_recipe(recipe, overrides or [])
    run = out or Path("runs") / loaded.name
    if count is not None and processes.must_launch(count):
        processes.launch(count, sys.argv[1:])
        return
    from edgetune.train.run import train as run_training

    with processes.failures_reported():
        summary = run_training(loaded, run, resume=resume, force=force)
    console.document({"run": str(run), **summary.model_dump()})
    evaluation = "" if summary.eval_loss is None else f", evaluation loss {summary.eval_loss:.3f}"
    console.result(
        f"{summary.name}: {summary.steps} steps in {summary.train_seconds:.0f} s "
        f"({summary.tokens_per_second:.0f} tokens/s), loss {summary.final_train_loss:.3f}{evaluation}, "
        f"{summary.trainable_percent:.2f} % of the parameters trained\n"
        f"written to {run}\n\n"
        f"next: edgetune export {run} --out {summary.name}-q4_k_m.gguf"
    )
