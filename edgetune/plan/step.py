"""One training step on meta tensors: what it holds at most beside the model, and how much it computes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgetune.plan.attention import FusedAttention, use_planned_attention
from edgetune.plan.live import LiveBytes
from edgetune.plan.skeleton import Skeleton
from edgetune.plan.workload import Workload
from edgetune.recipe.schema import Recipe
from edgetune.train.objectives.adapted import base_model
from edgetune.train.objectives.packing import ATTENTION

_CHECKPOINTING = {
    "use_reentrant": False,
    "preserve_rng_state": False,  # nothing is drawn
    "context_fn": lambda: (nullcontext(), FusedAttention()),  # the backward pass leaves function modes
}


@dataclass(frozen=True)
class Step:
    """What forward and backward pass of one batch take; `tokens` are those that the model computes.

    `peak_bytes` counts everything that the step makes, gradients included; `logits_bytes` of them are as wide as the
    vocabulary when most is held.
    """

    peak_bytes: int
    logits_bytes: int
    flops: int
    tokens: int


def simulate_step(recipe: Recipe, skeleton: Skeleton, workload: Workload) -> Step:
    """Run the training's own objective on the largest batch, on the skeleton's meta tensors."""
    model, objective = skeleton.model, workload.objective
    model.train()
    objective.attach(model)
    base = base_model(model)
    if base.config._attn_implementation == ATTENTION:
        use_planned_attention(base)
    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable(_CHECKPOINTING)
        base.config.use_cache = False
    for parameter in skeleton.trained:
        parameter.grad = torch.empty_like(parameter) if recipe.train.accumulate > 1 else None
    vocabulary = base.config.get_text_config().vocab_size
    batch: Any = objective.collate(workload.largest)

    def kind(tensor: Tensor) -> str:
        return "logits" if tensor.dim() > 1 and tensor.shape[-1] == vocabulary else "activations"

    padded = len({len(example.input_ids) for example in workload.largest}) > 1
    with LiveBytes(kind, answer=not padded) as live, FusedAttention():
        torch.autograd.backward(objective.loss(model, batch))
    kept = skeleton.trained_bytes if recipe.train.accumulate > 1 else 0
    for parameter in skeleton.trained:
        parameter.grad = None
    tokens = batch["input_ids"].numel() + (batch["labels"].numel() if skeleton.kind == "encoder-decoder" else 0)
    return Step(live.peak_bytes + kept, live.at_peak.get("logits", 0), live.flops, tokens)
