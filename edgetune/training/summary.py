"""What a finished run reports: summary.json, the model card and the plot, all written from measurements."""

from __future__ import annotations

import json
import math
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict

import edgetune
from edgetune import outputs
from edgetune.recipe.schema import Recipe
from edgetune.training import processes
from edgetune.training.card import model_card
from edgetune.training.diagnosis import Diagnosis, diagnose, diagnose_recipe
from edgetune.training.plot import plot_training
from edgetune.training.run_directory import RunDirectory
from edgetune.training.telemetry import Telemetry

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, TrainerState


class Summary(BaseModel):
    """The fields of summary.json, explained in docs/runs.md. Losses are mean negative log-likelihoods in nats per
    supervised token (or text, with a classification head)."""

    model_config = ConfigDict(frozen=True)

    name: str
    task: str
    method: str
    base: str
    backend: str
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
    energy_kwh: float | None
    co2_kg: float | None
    device: str
    dtype: str
    frozen_products: str | None = None
    final_train_loss: float
    eval_loss: float | None
    evaluation: dict[str, Any] | None
    warnings: list[Diagnosis]
    seed: int
    versions: dict[str, str]


def summarize(
    recipe: Recipe,
    run: RunDirectory,
    model: PeftModel | PreTrainedModel,
    state: TrainerState,
    telemetry: Telemetry,
    *,
    parameters: tuple[int, int],
    dtype: torch.dtype,
    frozen_products: str | None,
    train_seconds: float,
    eval_loss: float | None,
    evaluation: dict[str, Any] | None,
    backend: str,
) -> Summary:
    """Write plots/loss.png, README.md and summary.json into the run directory.

    `parameters` are those that are trained and all, counted before the model was spread over processes.
    `frozen_products` says how frozen layers multiplied, where a CPU trained in float32. `evaluation` is
    what the last evaluation tells beside its loss, in JSON's types: a confusion matrix with its labels and the figures
    of each, or ROUGE values. summary.json comes last, because it says that the run is finished.
    """
    trainable, total = parameters
    epochs = state.epoch or 0.0
    energy = telemetry.measure_energy()
    rows = run.read_metrics()
    summary = Summary(
        name=recipe.name,
        task=recipe.task,
        method=recipe.method.type,
        base=recipe.base.model,
        backend=backend,
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
        peak_memory_bytes=telemetry.peak_memory_bytes,
        energy_kwh=energy.energy_kwh if energy else None,
        co2_kg=energy.co2_kg if energy else None,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})",
        dtype=str(dtype).removeprefix("torch."),
        frozen_products=frozen_products,
        final_train_loss=[row["loss"] for row in rows if "loss" in row][-1],
        eval_loss=eval_loss if eval_loss is not None and math.isfinite(eval_loss) else None,
        evaluation=evaluation,
        warnings=[
            *diagnose_recipe(recipe, processes=processes.world_size()),
            *diagnose(rows, recipe, choices=_choices(recipe, model)),
        ],
        seed=recipe.train.seed,
        versions=_versions(backend),
    )
    plot_training(rows, run.loss_plot, title=recipe.name)
    outputs.write_text(run.card, model_card(recipe, summary), force=True)
    outputs.write_text(run.summary, json.dumps(summary.model_dump(), indent=2) + "\n", force=True)
    return summary


def count_parameters(model: PeftModel | PreTrainedModel) -> tuple[int, int]:
    """How many parameters are trained, and how many there are, as PEFT counts them (of 4-bit weights each once)."""
    if hasattr(model, "get_nb_trainable_parameters"):
        trainable, total = model.get_nb_trainable_parameters()
        return int(trainable), int(total)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def _choices(recipe: Recipe, model: PeftModel | PreTrainedModel) -> int:
    """What one prediction of the model chooses from: labels, or tokens."""
    if recipe.base.head == "classification":
        return len(recipe.data.labels)
    vocabulary: int = model.config.get_text_config().vocab_size
    return vocabulary


def _versions(backend: str) -> dict[str, str]:
    packages = ["torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets"]
    if backend != "transformers":
        packages.append(backend)
    found = {name: metadata.version(name) for name in packages}
    return {"edgetune": edgetune.__version__, "python": platform.python_version(), **found}
