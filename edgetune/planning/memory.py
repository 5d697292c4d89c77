"""The memory of a training by part, at its peak, with the state that optimizers keep beside the trained weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from edgetune.planning.skeleton import Skeleton
from edgetune.planning.step import Step
from edgetune.recipe.methods import Full
from edgetune.recipe.schema import Recipe


@dataclass(frozen=True)
class Memory:
    """Bytes of each part on one device; their sum is the peak.

    `activations` is the need of a step beyond gradients and logits; `allocator` is what the C library's heap cannot
    reuse; `runtime` is the process without a model.
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
        return sum(vars(self).values())


HEAP_WASTE = 0.3
"""Resident memory of a step on a CPU beyond its live tensors, as a share of these (benchmarks/plan_memory.py).

A kernel's scratch memory is excluded: blocks of its size return to the system at once."""


def memory_of(recipe: Recipe, skeleton: Skeleton, step: Step, *, on_heap: bool, runtime: int, processes: int) -> Memory:
    """The parts of one process, whose tensors are `on_heap` where it trains on a CPU.

    With DDP each process holds the whole model, and its gradients twice; FSDP divides both.
    """
    full = isinstance(recipe.method, Full)
    weights, adapter = skeleton.frozen_bytes, skeleton.trained_bytes
    if full:
        weights, adapter = weights + adapter, 0
    gradients = skeleton.trained_bytes
    state = optimizer_bytes(recipe, skeleton.trained)
    peak, logits = step.largest.peak_bytes, step.largest.logits_bytes
    # The peak of a step is one number that includes its gradients.
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


_SMALLEST_IN_8_BITS = 4096
"""bitsandbytes keeps the state of smaller parameters in 32 bits."""

_BLOCK_OF_8_BITS = 256
"""Numbers of 8 bits that share one 32-bit scale."""


def optimizer_bytes(recipe: Recipe, trained: Iterable[nn.Parameter]) -> int:
    """Bytes of the state that the recipe's optimizer keeps between updates."""
    return sum(_state_bytes(recipe.train.optimizer, parameter) for parameter in trained)


def update_bytes(recipe: Recipe, trained: Iterable[nn.Parameter]) -> int:
    """Bytes that an update allocates and frees: with AdamW on 16-bit weights, 32-bit gradients and denominators."""
    if recipe.train.optimizer != "adamw":
        return 0
    return sum(2 * 4 * parameter.numel() for parameter in trained if parameter.dtype == torch.bfloat16)


def _state_bytes(optimizer: str, parameter: nn.Parameter) -> int:
    count = parameter.numel()
    if optimizer == "sgd":
        return 0
    if optimizer == "adamw":  # PreciseAdamW keeps a 32-bit copy of 16-bit weights
        return 12 * count if parameter.dtype == torch.bfloat16 else 2 * parameter.element_size() * count
    if optimizer == "adafactor":
        if parameter.dim() < 2:
            return 4 * count
        *others, rows, columns = parameter.shape
        return 4 * math.prod(others) * (rows + columns)
    if optimizer.endswith("8bit") and count >= _SMALLEST_IN_8_BITS:
        return 2 * (count + 4 * math.ceil(count / _BLOCK_OF_8_BITS))
    return 8 * count
