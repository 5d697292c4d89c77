"""Runs that are logged without being trained: telemetry fed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgetune.recipe.schema import Recipe
from edgetune.training.run_directory import RunDirectory
from edgetune.training.telemetry import Telemetry


def make_recipe(*, method: dict[str, Any] | None = None, base: dict[str, Any] | None = None, **train: Any) -> Recipe:
    """A recipe for a chat, whose data and base do not exist."""
    return Recipe.model_validate(
        {
            "name": "logged",
            "task": "chat",
            "base": {"model": "someone/base", **(base or {})},
            "data": {"train": [{"source": "rows.jsonl", "format": "sharegpt"}]},
            "method": method or {"type": "lora"},
            "train": train,
        }
    )


def log_steps(run: RunDirectory, recipe: Recipe, losses: Sequence[float], *, first: int = 1) -> None:
    """Log one row per loss, and after the last an evaluation."""
    run.path.mkdir(parents=True, exist_ok=True)
    with Telemetry(run, recipe) as telemetry:
        for step, loss in enumerate(losses, start=first):
            telemetry.count_batch(tokens=12, supervised=5)
            telemetry.log(
                step=step, epoch=step / 10, values={"loss": loss, "grad_norm": 0.5, "learning_rate": 1e-4 / step}
            )
        telemetry.log(step=step, epoch=step / 10, values={"eval_loss": 1.25, "eval_accuracy": 0.75})


def logged_run(path: Path) -> RunDirectory:
    """An empty run directory at `path`."""
    path.mkdir(parents=True, exist_ok=True)
    return RunDirectory(path)
