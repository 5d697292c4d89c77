"""`edgetune train`: train by a recipe and write a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import edgetune
from edgetune import console
from edgetune.cli.options import ForceOption, JsonOption, OverrideOption, RecipeArgument


def train(
    recipe: RecipeArgument,
    overrides: OverrideOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Run directory. (default: runs/NAME)")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    processes: Annotated[
        int | None,
        typer.Option("--processes", metavar="N", help="Train with N processes on this machine, at most one per GPU."),
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Fine-tune a base model with a recipe."""
    console.configure(json_mode=json)
    loaded = edgetune.load_recipe(recipe, overrides or ())
    run = edgetune.train(loaded, out=out, resume=resume, processes=processes, force=force)
    summary = run.summary
    console.document({"run": str(run.path), **summary.model_dump()})
    loss = f"loss {summary.final_train_loss:.3f}"
    if summary.eval_loss is not None:
        loss += f", evaluation loss {summary.eval_loss:.3f}{_headline(summary.evaluation)}"
    console.result(
        f"{summary.name}: {summary.steps} steps in {summary.train_seconds:.0f} s "
        f"({summary.tokens_per_second:.0f} tokens/s), {loss}, "
        f"{summary.trainable_percent:.2f} % of the parameters trained\n"
        f"written to {run.path}\n\n"
        f"next: {_next_step(loaded, run.path)}"
    )


def _next_step(recipe: edgetune.Recipe, run: Path) -> str:
    """What to do with a run of this kind: not every one can be folded into its base, or run by llama.cpp."""
    from edgetune.recipe.methods import ADDS_TO_THE_INPUT

    if recipe.method.type in ADDS_TO_THE_INPUT:
        return f"load {run / 'adapter'} with PEFT; {recipe.method.type} changes no weights and cannot be folded in"
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
