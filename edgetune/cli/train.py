"""`edgetune train`: train by a recipe and write a run directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetune import console
from edgetune.cli.options import ForceOption, JsonOption, OverrideOption, RecipeArgument

if TYPE_CHECKING:
    from edgetune.recipe.schema import Recipe
    from edgetune.training.run_directory import RunDirectory
    from edgetune.training.summary import Summary


def train(
    recipe: RecipeArgument,
    overrides: OverrideOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Run directory. (default: runs/NAME)")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    count: Annotated[
        int | None,
        typer.Option("--processes", metavar="N", help="Train with N processes on this machine, at most one per GPU."),
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Fine-tune a base model with a recipe."""
    console.configure(json_mode=json)
    from edgetune.recipe.load import load_recipe
    from edgetune.training import processes
    from edgetune.training.run_directory import RunDirectory

    loaded = load_recipe(recipe, overrides or [])
    run = out or Path("runs") / loaded.name
    if count is not None and processes.must_launch(count):
        _refuse_at_once(RunDirectory(run), loaded, count, resume=resume, force=force)
        processes.launch(count, sys.argv[1:])
        return
    from edgetune.training.run import train as run_training

    with processes.failures_reported():
        _show(run_training(loaded, run, resume=resume, force=force), loaded, run)


def _show(summary: Summary, loaded: Recipe, run: Path) -> None:
    console.document({"run": str(run), **summary.model_dump()})
    loss = f"loss {summary.final_train_loss:.3f}"
    if summary.eval_loss is not None:
        loss += f", evaluation loss {summary.eval_loss:.3f}{_headline(summary.evaluation)}"
    console.result(
        f"{summary.name}: {summary.steps} steps in {summary.train_seconds:.0f} s "
        f"({summary.tokens_per_second:.0f} tokens/s), {loss}, "
        f"{summary.trainable_percent:.2f} % of the parameters trained\n"
        f"written to {run}\n\n"
        f"next: {_next_step(loaded, run)}"
    )


def _refuse_at_once(run: RunDirectory, recipe: Recipe, count: int, *, resume: bool, force: bool) -> None:
    """Run the processes' own checks before any of them starts."""
    if resume:
        run.check_resumable(recipe, processes=count)
    else:
        run.check_startable(force=force)


def _next_step(recipe: Recipe, run: Path) -> str:
    """The next command for this kind of run. Not every adapter can be merged, and llama.cpp cannot run every model."""
    from edgetune.recipe.methods import ADDS_TO_THE_INPUT

    if recipe.method.type in ADDS_TO_THE_INPUT:
        return f"load {run / 'adapter'} with PEFT; {recipe.method.type} changes no weights and cannot be merged"
    if recipe.base.head == "classification":
        return f"edgetune merge {run} --out {recipe.name}-merged"
    return f"edgetune export {run} --out {recipe.name}-q4_k_m.gguf"


def _headline(evaluation: dict[str, Any] | None) -> str:
    """The task's main metrics of an evaluation."""
    if not evaluation:
        return ""
    if "accuracy" in evaluation:
        return f", accuracy {evaluation['accuracy']:.3f}, macro-F1 {evaluation['macro_f1']:.3f}"
    rouge = "/".join(f"{evaluation[name]:.1f}" for name in ("rouge1", "rouge2", "rougeL"))
    return f", ROUGE-1/2/L {rouge}"
