"""What a finished run reports: summary.json, the model card and the loss plot, all written from measurements."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict

import edgetune
from edgetune import outputs
from edgetune.recipe.load import dump_recipe
from edgetune.recipe.schema import Recipe
from edgetune.train.plot import plot_loss
from edgetune.train.run_directory import RunDirectory
from edgetune.train.telemetry import Telemetry, peak_memory_bytes

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import TrainerState


class Summary(BaseModel):
    """The fields of summary.json. Losses are mean negative log-likelihoods in nats per supervised token."""

    model_config = ConfigDict(frozen=True)

    name: str
    task: str
    method: str
    base: str
    trainable_parameters: int
    total_parameters: int
    trainable_percent: float
    steps: int
    epochs: float
    train_tokens: int
    supervised_tokens: int
    train_seconds: float
    seconds_per_epoch: float
    tokens_per_second: float
    peak_memory_bytes: int
    device: str
    dtype: str
    final_train_loss: float
    eval_loss: float | None
    seed: int
    versions: dict[str, str]


def summarize(
    recipe: Recipe,
    run: RunDirectory,
    model: PeftModel,
    state: TrainerState,
    telemetry: Telemetry,
    *,
    dtype: torch.dtype,
    train_seconds: float,
    eval_loss: float | None,
) -> Summary:
    """Write plots/loss.png, README.md and summary.json into the run directory.

    summary.json comes last, because it says that the run is finished.
    """
    trainable, total = model.get_nb_trainable_parameters()
    epochs = state.epoch or 0.0
    losses = [row["loss"] for row in run.read_metrics() if "loss" in row]
    summary = Summary(
        name=recipe.name,
        task=recipe.task,
        method=recipe.method.type,
        base=recipe.base.model,
        trainable_parameters=trainable,
        total_parameters=total,
        trainable_percent=round(100 * trainable / total, 6),
        steps=state.global_step,
        epochs=round(epochs, 4),
        train_tokens=telemetry.train_tokens,
        supervised_tokens=telemetry.supervised_tokens,
        train_seconds=round(train_seconds, 3),
        seconds_per_epoch=round(train_seconds / epochs, 3) if epochs else 0.0,
        tokens_per_second=round(telemetry.train_tokens / train_seconds, 1),
        peak_memory_bytes=peak_memory_bytes(),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})",
        dtype=str(dtype).removeprefix("torch."),
        final_train_loss=losses[-1],
        eval_loss=eval_loss,
        seed=recipe.train.seed,
        versions=_versions(),
    )
    plot_loss(run.read_metrics(), run.loss_plot, title=recipe.name)
    outputs.write_text(run.card, model_card(recipe, summary), force=True)
    outputs.write_text(run.summary, json.dumps(summary.model_dump(), indent=2) + "\n", force=True)
    return summary


def model_card(recipe: Recipe, summary: Summary) -> str:
    """The run's README.md in the hub's format; every figure in it comes from `summary`."""
    loss = f"{summary.final_train_loss:.4f}"
    if summary.eval_loss is not None:
        loss += f" (evaluation {summary.eval_loss:.4f})"
    base_type = summary.dtype if recipe.base.quantize == "none" else recipe.base.quantize
    rows: dict[str, Any] = {
        "Task": summary.task,
        "Method": f"{summary.method}, base in {base_type}",
        "Trainable parameters": f"{summary.trainable_parameters:,} of {summary.total_parameters:,} "
        f"({summary.trainable_percent:.4f} %)",
        "Steps, epochs": f"{summary.steps}, {summary.epochs:g}",
        "Tokens (supervised)": f"{summary.train_tokens:,} ({summary.supervised_tokens:,})",
        "Final training loss": loss,
        "Time": f"{summary.train_seconds:.0f} s, {summary.tokens_per_second:.0f} tokens/s",
        "Peak memory": f"{summary.peak_memory_bytes / 2**30:.2f} GiB on {summary.device}",
        "Seed": summary.seed,
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""---
base_model: {recipe.base.model}
library_name: peft
tags: [edgetune, {summary.method}, {summary.task}]
---

# {recipe.name}

{recipe.description or f"An adapter for {recipe.base.model}."}

| | |
|---|---|
{table}

![Training loss](plots/loss.png)

`edgetune merge`, `edgetune export` and PEFT itself take this folder. The recipe that made it, with every default:

```yaml
{dump_recipe(recipe)}```
"""


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")
    found = {name: metadata.version(name) for name in packages}
    return {"edgetune": edgetune.__version__, "python": platform.python_version(), **found}
