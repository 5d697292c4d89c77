"""One training step on meta tensors: what it holds at most beside the model, and how much it computes."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from edgetune.errors import RecipeError
from edgetune.planning.attention import FusedAttention, use_planned_attention
from edgetune.planning.base import PlannedBase
from edgetune.planning.live import SCRATCH, LiveBytes
from edgetune.planning.skeleton import Skeleton, build_skeleton, in_bfloat16
from edgetune.planning.workload import Workload
from edgetune.recipe.methods import HiRA, SHiRA
from edgetune.recipe.schema import Recipe
from edgetune.training.objectives.adapted import base_model
from edgetune.training.objectives.packing import ATTENTION

_CHECKPOINTING = {
    "use_reentrant": False,
    "preserve_rng_state": False,  # nothing is drawn
    "context_fn": lambda: (nullcontext(), FusedAttention()),  # the backward pass leaves function modes
}


DEPTHS = (2, 3)
"""Deeper models are simulated with so many layers, and the rest is a straight line: layers are all alike."""


@dataclass(frozen=True)
class Phase:
    """What the forward or the backward pass holds at most.

    `logits_bytes` of it are as wide as the vocabulary, and `scratch_bytes` are a kernel's own while it works.
    """

    peak_bytes: int
    logits_bytes: int
    scratch_bytes: int


@dataclass(frozen=True)
class Step:
    """What one batch takes: everything that is made on the way, gradients included. `tokens` are those computed."""

    forward: Phase
    backward: Phase
    flops: int
    tokens: int

    @property
    def largest(self) -> Phase:
        """The phase that holds most."""
        return max(self.forward, self.backward, key=lambda phase: phase.peak_bytes)


def step_of(recipe: Recipe, base: PlannedBase, skeleton: Skeleton, workload: Workload, *, on_cpu: bool = False) -> Step:
    """One step of the whole model, by simulating two shallow ones where it is deep. The skeleton is left as it is."""
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
    """SHiRA's sparse products have no meta kernels; HiRA makes the same dense weights and gradients on the way."""
    method = recipe.method
    if not isinstance(method, SHiRA):
        return recipe
    return recipe.model_copy(update={"method": HiRA(type="hira", rank=1, targets=method.targets)})


def _build(recipe: Recipe, base: PlannedBase, skeleton: Skeleton) -> Skeleton:
    made = build_skeleton(recipe, base, dtype=skeleton.dtype, total_steps=skeleton.total_steps)
    return made if skeleton.loaded_bytes is None else in_bfloat16(made)


def with_depth(base: PlannedBase, layers: int) -> PlannedBase:
    """The same base with fewer layers, of each stack where it has two."""
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

    `on_cpu` counts what products take there for themselves.
    """
    model, objective = skeleton.model, workload.objective
    model.train()
    objective.attach(model)
    base = base_model(model)
    if base.config._attn_implementation == ATTENTION:
        use_planned_attention(base)
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
