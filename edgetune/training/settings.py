"""A recipe's `train` section -> the settings of Transformers' and TRL's trainers."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import TrainingArguments
from trl import SFTConfig

from edgetune.models.families import ModelKind
from edgetune.recipe.schema import Recipe
from edgetune.training import processes
from edgetune.training.run_directory import RunDirectory

_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}

_UNPAGED = {"paged_adamw": "adamw", "paged_adamw_8bit": "adamw_8bit"}
"""Without a GPU there is no memory to page out of; the updates are the same."""


def trainer_settings(
    recipe: Recipe, run: RunDirectory, *, kind: ModelKind, evaluates: bool, dtype: torch.dtype
) -> TrainingArguments:
    """Settings for Transformers' trainer, or for TRL's where a decoder learns to write text."""
    train = recipe.train
    on_gpu = torch.cuda.is_available()
    optimizer = train.optimizer if on_gpu else _UNPAGED.get(train.optimizer, train.optimizer)
    evaluates_midway = evaluates and train.eval_every is not None
    settings: dict[str, Any] = {
        "output_dir": str(run.checkpoints),
        "num_train_epochs": train.epochs,
        "max_steps": train.max_steps or -1,
        "per_device_train_batch_size": train.batch_size,
        "per_device_eval_batch_size": train.batch_size,
        "gradient_accumulation_steps": train.accumulate,
        "learning_rate": train.learning_rate,
        "optim": _OPTIMIZERS[optimizer],
        "lr_scheduler_type": train.schedule,
        "warmup_steps": train.warmup_steps,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "gradient_checkpointing": train.gradient_checkpointing,
        "eval_strategy": "steps" if evaluates_midway else "no",
        "eval_steps": train.eval_every if evaluates_midway else None,
        "save_strategy": "steps" if train.save_every else "epoch",
        "save_steps": train.save_every or 500,
        "save_total_limit": 2,
        "train_sampling_strategy": "group_by_length" if train.group_by_length else "random",
        "logging_strategy": "steps",
        "logging_steps": train.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "seed": train.seed,
        "data_seed": train.seed,
        "use_cpu": not on_gpu,
        # The weights are in the recipe's dtype already; float16 alone needs its gradients scaled as well.
        "bf16": False,
        "fp16": on_gpu and dtype == torch.float16,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False,
    }
    if processes.world_size() > 1:
        settings["ddp_backend"] = "nccl" if on_gpu else "gloo"
    if recipe.base.head == "lm" and kind == "decoder":
        return SFTConfig(**settings, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None)
    return TrainingArguments(**settings)


def total_steps(recipe: Recipe, batches_per_epoch: int) -> int:
    """Optimizer updates of a whole run, as Transformers counts them (the last, smaller batch of an epoch included)."""
    train = recipe.train
    if train.max_steps is not None:
        return train.max_steps
    return math.ceil(train.epochs * max(math.ceil(batches_per_epoch / train.accumulate), 1))
