"""What a training saves: an adapter in PEFT's own format, or with method full a whole model in Transformers', and the
summary, the model card and the plot of the run."""

from __future__ import annotations

import json
import math
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import edgetune
from edgetune.models.adapters import save_adapter
from edgetune.models.ends import record_answer_end
from edgetune.models.tokenizer import wrap_tokenizer
from edgetune.outputs import staged_folder, write_text
from edgetune.plots import can_draw
from edgetune.recipe.schema import Recipe
from edgetune.training import processes
from edgetune.training.card import model_card
from edgetune.training.diagnosis import diagnose, diagnose_recipe
from edgetune.training.plot import plot_training
from edgetune.training.run_directory import RunDirectory
from edgetune.training.summary import Summary
from edgetune.training.telemetry import Telemetry

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerState


def save_result(run: RunDirectory, model: PeftModel | PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save the result in RUN/adapter or RUN/model, with the tokenizer and template that training used."""
    whole = not hasattr(model, "peft_config")
    with staged_folder(run.model if whole else run.adapter, force=True) as folder:
        if whole:
            model.save_pretrained(folder)
        else:
            save_adapter(model, folder)
        tokenizer.save_pretrained(folder)
        if whole and tokenizer.is_fast:
            record_answer_end(folder, wrap_tokenizer(tokenizer, where=str(run.model)))
        (folder / "README.md").unlink(missing_ok=True)


def save_weights(model: PeftModel | PreTrainedModel, folder: Path) -> None:
    if hasattr(model, "peft_config"):
        # With its defaults PEFT asks the hub here whether the base's vocabulary was changed.
        model.save_pretrained(folder, save_embedding_layers=False)
    else:
        model.save_pretrained(folder)


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
    """Write plots/loss.png (where matplotlib is installed), README.md and summary.json into the run directory.

    `parameters` are the trainable and all parameters, counted before the model was sharded. `frozen_products` says how
    frozen layers multiplied, where a CPU trained in float32. `evaluation` is the last evaluation beside its loss, in
    JSON's types: per-label figures and a confusion matrix, or ROUGE values. summary.json comes last, because it marks
    the run as finished.
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
    plotted = can_draw("plots/loss.png")
    if plotted:
        plot_training(rows, run.loss_plot, title=recipe.name)
    write_text(run.card, model_card(recipe, summary, plotted=plotted), force=True)
    write_text(run.summary, json.dumps(summary.model_dump(), indent=2) + "\n", force=True)
    return summary


def count_parameters(model: PeftModel | PreTrainedModel) -> tuple[int, int]:
    """How many parameters are trained, and how many there are, as PEFT counts them (of 4-bit weights each once)."""
    if hasattr(model, "get_nb_trainable_parameters"):
        trainable, total = model.get_nb_trainable_parameters()
        return int(trainable), int(total)
    return model.num_parameters(only_trainable=True), model.num_parameters()


def _choices(recipe: Recipe, model: PeftModel | PreTrainedModel) -> int:
    """The number of possible predictions: labels, or tokens."""
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
