"""The `train` section of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgetune.recipe.section import Section


class Train(Section):
    """How the model is trained."""

    epochs: float = Field(1, gt=0, description="Passes over the training data.")
    max_steps: int | None = Field(
        None, ge=1, description="Stop after this many optimizer updates, whatever epochs says."
    )
    batch_size: int = Field(1, ge=1, description="Examples per device and step.")
    accumulate: int = Field(1, ge=1, description="Steps per optimizer update.")
    learning_rate: float = Field(2e-4, gt=0)
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor", "sgd"] = "adamw"
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the learning rate falls after the warm-up."
    )
    warmup_steps: int = Field(0, ge=0, description="Updates over which the learning rate rises from 0.")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="classify: balanced weights each example by N / (C · n_c), n_c of the N with its label."
    )
    gradient_checkpointing: bool = Field(False, description="Less memory for activations, about a third more time.")
    group_by_length: bool = Field(False, description="Batches of examples of about the same length: less padding.")
    packing: bool = Field(
        False,
        description="chat: fill each row up to max_length with whole examples that do not see each other; batch_size "
        "then counts rows.",
    )
    backend: Literal["auto", "transformers", "unsloth"] = Field(
        "auto", description="auto takes Unsloth where it is installed and supports the combination."
    )
    compile: bool = Field(False, description="torch.compile: slower to start, quicker per step.")
    adapter_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Type of the trained weights; below 32 bits the optimizer still keeps them and its state in 32.",
    )
    frozen_products: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="How frozen linear layers multiply where a CPU trains in float32. bfloat16 keeps their weights in "
        "half the memory and rounds what they read and give to 8 bits of precision; adapter, norms, output layer and "
        "loss stay float32. auto takes it where base.dtype is auto too, the method allows it, and a measurement at the "
        "start finds it quicker (processors with AMX or AVX512-BF16); float32 written out stays float32.",
    )
    eval_every: int | None = Field(None, ge=1, description="Evaluate each this many updates; None is at the end only.")
    eval_limit: int | None = Field(
        None, ge=1, description="Generate for (summarize) at most this many evaluation examples."
    )
    metrics: list[str] = Field(
        [],
        description="classify, summarize: metrics of an evaluation beside the task's own, such as weighted_f1 or "
        "exact_match; see the metrics of suites.",
    )
    save_every: int | None = Field(None, ge=1, description="Checkpoint each this many updates; None is each epoch.")
    log_every: int = Field(1, ge=1, description="Write a row of metrics.jsonl each this many updates.")
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        [], description="Where metrics are sent besides metrics.jsonl."
    )
    energy: bool = Field(False, description="Measure energy and CO₂ with codecarbon.")
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="With --processes: a whole model on each device, or one model split over all."
    )
    seed: int = Field(0, ge=0)
