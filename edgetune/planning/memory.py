"""The memory of a training, part by part, at the moment when most is held."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgetune.planning.optimizer import optimizer_bytes, update_bytes
from edgetune.planning.skeleton import Skeleton
from edgetune.planning.step import Step
from edgetune.recipe.methods import Full
from edgetune.recipe.schema import Recipe


@dataclass(frozen=True)
class Memory:
    """Bytes of each part on one device. Together they are the peak.

    `activations` is what a step needs beyond the gradients and the logits; `allocator` what the C library's heap cannot
    use again between them; `runtime` the process without a model.
    """

    weights: int
    quantization_constants: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    allocator: int
    runtime: int
    loading: int = 0

    @property
    def total(self) -> int:
        """The peak."""
        return sum(vars(self).values())


HEAP_WASTE = 0.3
"""Resident memory that a step takes on a CPU beyond what it holds, as a share of that (benchmarks/plan_memory.py).

A kernel's scratch is left out: blocks of its size are given back to the system at once."""


def memory_of(recipe: Recipe, skeleton: Skeleton, step: Step, *, on_heap: bool, runtime: int, processes: int) -> Memory:
    """Parts of one process, whose tensors are `on_heap` where it trains on a CPU.

    DDP holds all of the model in each, and its gradients twice; FSDP divides it up."""
    full = isinstance(recipe.method, Full)
    weights, adapter = skeleton.frozen_bytes, skeleton.trained_bytes
    if full:
        weights, adapter = weights + adapter, 0
    gradients = skeleton.trained_bytes
    state = optimizer_bytes(recipe, skeleton.trained)
    peak, logits = step.largest.peak_bytes, step.largest.logits_bytes
    # What a step holds at most is known as one number, with the gradients that exist by then.
    beyond = max(max(peak, gradients + update_bytes(recipe, skeleton.trained)) - gradients, 0)
    logits = min(logits, beyond)
    allocator = round(HEAP_WASTE * max(beyond + gradients - step.largest.scratch_bytes, 0)) if on_heap else 0
    constants = skeleton.constants_bytes
    if processes > 1 and recipe.train.parallel == "fsdp":
        gathered = skeleton.largest_block_bytes
        weights, constants = weights // processes + gathered, constants // processes
        adapter, gradients, state = adapter // processes, gradients // processes, state // processes
    elif processes > 1:
        gradients *= 2
    training = Memory(weights, constants, adapter, gradients, state, beyond - logits, logits, allocator, runtime)
    if skeleton.loaded_bytes is None:
        return training
    return replace(training, loading=max(skeleton.loaded_bytes + skeleton.trained_bytes + runtime - training.total, 0))
