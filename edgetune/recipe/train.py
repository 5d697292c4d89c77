"""The `train` section of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgetune.recipe.section import Section


class Train(Section):
    """How the model is trained."""

    epochs: float = Field(1, gt=0, description="Passes over the training data.")
    max_steps: int | None = Field(
        None, ge=1, description="Stop after this many optimizer updates, regardless of epochs."
    )
    batch_size: int = Field(1, ge=1, description="Examples per device and step.")
    accumulate: int = Field(1, ge=1, description="Steps per optimizer update.")
    learning_rate: float = Field(2e-4, gt=0)
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor", "sgd"] = "adamw"
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="Decay of the learning rate after the warm-up."
    )
    warmup_steps: int = Field(0, ge=0, description="Updates over which the learning rate rises from 0.")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="classify: balanced weights each example by N / (C · n_c); n_c of N examples have its label.",
    )
    gradient_checkpointing: bool = Field(False, description="Less memory for activations, but about a third more time.")
    group_by_length: bool = Field(False, description="Make batches of examples of similar length: less padding.")
    packing: bool = Field(
        False,
        description="chat: fill each row up to max_length with whole examples that do not attend to each other; "
        "batch_size then counts rows.",
    )
    backend: Literal["auto", "transformers", "unsloth"] = Field(
        "auto", description="auto uses Unsloth on a GPU if it is installed and supports the recipe."
    )
    compile: bool = Field(False, description="torch.compile: a slower start and faster steps.")
    adapter_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Type of the trained weights; the optimizer always keeps a 32-bit copy and 32-bit state.",
    )
    frozen_products: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Products of frozen linear layers when a CPU trains in float32. bfloat16 halves the memory of "
        "their weights and rounds their inputs and outputs to 8 bits of precision; adapter, norms, output layer and "
        "loss stay float32. auto uses it if base.dtype is auto too, the method allows it, and a measurement at the "
        "start finds it faster (processors with AMX or AVX512-BF16).",
    )
    eval_every: int | None = Field(None, ge=1, description="Evaluate every N updates; null: only at the end.")
    eval_limit: int | None = Field(
        None, ge=1, description="summarize: generate for at most this many evaluation examples."
    )
    metrics: list[str] = Field(
        [],
        description="classify, summarize: further metrics of an evaluation, such as weighted_f1 or exact_match; the "
        "reference of suites lists them.",
    )
    save_every: int | None = Field(None, ge=1, description="Save a checkpoint every N updates; null: every epoch.")
    log_every: int = Field(1, ge=1, description="Write a row of metrics.jsonl every N updates.")
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        [], description="Trackers that receive the metrics, in addition to metrics.jsonl."
    )
    energy: bool = Field(False, description="Measure energy and CO₂ with codecarbon.")
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="With several processes: ddp copies the model to each device, fsdp splits the frozen weights.",
    )
    seed: int = Field(0, ge=0)
