"""Simulates one training step on meta tensors: its peak memory beside the model, and its operations."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from edgetune.errors import RecipeError
from edgetune.planning.attention import FusedAttention
from edgetune.planning.base import PlannedBase
from edgetune.planning.live import SCRATCH, LiveBytes
from edgetune.planning.skeleton import Skeleton, build_skeleton, in_bfloat16
from edgetune.planning.workload import Workload
from edgetune.recipe.methods import HiRA, SHiRA
from edgetune.recipe.schema import Recipe
from edgetune.training.objectives.adapted import base_model
from edgetune.training.objectives.packing import groups_of

_CHECKPOINTING = {
    "use_reentrant": False,
    "preserve_rng_state": False,  # nothing is drawn
    "context_fn": lambda: (nullcontext(), FusedAttention()),  # the backward pass leaves function modes
}


DEPTHS = (2, 3)
"""Deeper models are simulated with so many layers and extrapolated linearly: all layers are alike."""


@dataclass(frozen=True)
class Phase:
    """The peak of the forward or the backward pass.

    `logits_bytes` of it belong to tensors as wide as the vocabulary, `scratch_bytes` to a running kernel.
    """

    peak_bytes: int
    logits_bytes: int
    scratch_bytes: int


@dataclass(frozen=True)
class Step:
    """The need of one batch, gradients included. `tokens` counts the computed tokens."""

    forward: Phase
    backward: Phase
    flops: int
    tokens: int

    @property
    def largest(self) -> Phase:
        """The phase with the higher peak."""
        return max(self.forward, self.backward, key=lambda phase: phase.peak_bytes)


def step_of(recipe: Recipe, base: PlannedBase, skeleton: Skeleton, workload: Workload, *, on_cpu: bool = False) -> Step:
    """One step of the whole model; a deep one is extrapolated from two shallow ones. The skeleton is not changed."""
    recipe = _with_dense_update(recipe)
    depth = base.config.get_text_config().num_hidden_layers
    if depth <= DEPTHS[-1] + 1:
        return simulate_step(recipe, _build(recipe, base, skeleton), workload, on_cpu=on_cpu)
    try:
        low, high = (
            simulate_step(recipe, _build(recipe, with_depth(base, layers), skeleton), workload, on_cpu=on_cpu)
            for layers in DEPTHS
        )
    except RecipeError:  # targets that name a layer by its number
        return simulate_step(recipe, _build(recipe, base, skeleton), workload, on_cpu=on_cpu)
    beyond = (depth - DEPTHS[0]) / (DEPTHS[1] - DEPTHS[0])

    def extended(one: int, other: int) -> int:
        return round(one + (other - one) * beyond)

    def phase(one: Phase, other: Phase) -> Phase:
        return replace(other, peak_bytes=extended(one.peak_bytes, other.peak_bytes))

    backward = phase(low.backward, high.backward)
    backward = replace(backward, peak_bytes=max(backward.peak_bytes, skeleton.trained_bytes))
    return Step(phase(low.forward, high.forward), backward, extended(low.flops, high.flops), high.tokens)


def _with_dense_update(recipe: Recipe) -> Recipe:
    """HiRA in place of SHiRA, whose sparse products have no meta kernels: both make the same dense tensors."""
    method = recipe.method
    if not isinstance(method, SHiRA):
        return recipe
    return recipe.model_copy(update={"method": HiRA(type="hira", rank=1, targets=method.targets)})


def _build(recipe: Recipe, base: PlannedBase, skeleton: Skeleton) -> Skeleton:
    made = build_skeleton(recipe, base, dtype=skeleton.dtype, total_steps=skeleton.total_steps)
    return made if skeleton.loaded_bytes is None else in_bfloat16(made)


def with_depth(base: PlannedBase, layers: int) -> PlannedBase:
    """The same base with fewer layers in each of its stacks."""
    config = deepcopy(base.config)
    text = config.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "num_decoder_layers", None):
        text.num_decoder_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return replace(base, config=config)


def simulate_step(recipe: Recipe, skeleton: Skeleton, workload: Workload, *, on_cpu: bool = False) -> Step:
    """Run the training's own objective on the largest batch, on the skeleton's meta tensors.

    `on_cpu` also counts the scratch memory of products on a CPU.
    """
    model, objective = skeleton.model, workload.objective
    model.train()
    objective.attach(model)
    base = base_model(model)
    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable(_CHECKPOINTING)
        base.config.use_cache = False
    accumulates = recipe.train.accumulate > 1
    for parameter in skeleton.trained:
        parameter.grad = torch.empty_like(parameter) if accumulates else None
    kept = skeleton.trained_bytes if accumulates else 0
    vocabulary = base.config.get_text_config().vocab_size
    batch: Any = objective.collate(workload.largest)
    padded = len({len(example.input_ids) for example in workload.largest}) > 1

    def kind(tensor: Tensor) -> str:
        return "logits" if tensor.dim() > 1 and tensor.shape[-1] == vocabulary else "activations"

    groups_of.cache_clear()
    with LiveBytes(kind, answer=not padded, onednn=on_cpu) as live, FusedAttention():
        loss = objective.loss(model, batch)
        forward = _phase(live, kept)
        live.begin_phase()
        torch.autograd.backward(loss)
        backward = _phase(live, kept)
    targets = batch["labels"].numel() if skeleton.kind == "encoder-decoder" else 0
    return Step(forward, backward, live.flops, batch["input_ids"].numel() + targets)


def _phase(live: LiveBytes, kept: int) -> Phase:
    return Phase(live.peak_bytes + kept, live.at_peak.get("logits", 0), live.at_peak.get(SCRATCH, 0))
