"""Plans a training from a recipe. Only configurations and local data are read."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgetune.errors import UsageError
from edgetune.models.families import kind_of
from edgetune.planning.base import PlannedBase, find_base
from edgetune.planning.disk import disk_of
from edgetune.planning.duration import estimate_duration
from edgetune.planning.machine import DeviceKind, Machine, empty_process_bytes, find_machine
from edgetune.planning.memory import Memory, memory_of
from edgetune.planning.plan import Plan
from edgetune.planning.skeleton import Skeleton, build_skeleton, in_bfloat16
from edgetune.planning.step import Step, step_of
from edgetune.planning.workload import Workload, find_workload
from edgetune.recipe.schema import Recipe
from edgetune.training.frozen_linear import check_products, takes_bfloat16

UNKNOWN_STEPS = 1_000_000
"""The length of AdaLoRA's schedule where it is unknown; it affects no shape."""

TOKENIZER_BYTES_PER_WORD = 1_000
"""Memory of a tokenizer, measured with SmolLM2's 49,152 words."""


@dataclass(frozen=True)
class RecipeEstimate:
    skeleton: Skeleton
    workload: Workload
    step: Step
    memory: Memory
    needed_bytes: int
    """Memory of the device: each process has its own GPU, and all share a CPU's memory."""


def plan_training(
    recipe: Recipe,
    *,
    device_memory: str | None = None,
    device: DeviceKind | None = None,
    processes: int = 1,
    flops: str | None = None,
) -> Plan:
    """Plan `recipe` for this machine, or for a device with `device_memory` ("16GB") and the speed `flops` ("312T").

    Raises UsageError for an invalid option, and the errors of loading the recipe's data and configuration.
    """
    if processes < 1:
        raise UsageError(f"{processes} processes cannot train", where="--processes", remedy="give 1 or more")
    machine = find_machine(device_memory, device)
    base = find_base(recipe.base)
    found = estimate(recipe, base, machine, processes)
    skeleton, workload, step = found.skeleton, found.workload, found.step
    width = base.config.get_text_config().hidden_size
    narrow = skeleton.loaded_bytes is not None
    return Plan(
        recipe=recipe,
        base=base,
        dtype=str(skeleton.dtype).removeprefix("torch."),
        trainable_parameters=skeleton.trainable_parameters,
        total_parameters=skeleton.total_parameters,
        processes=processes,
        memory=found.memory,
        needed_bytes=found.needed_bytes,
        machine=machine,
        fits=None if machine.memory_bytes is None else found.needed_bytes <= machine.memory_bytes,
        disk=disk_of(recipe, base, skeleton),
        duration=estimate_duration(
            flops_per_token=step.flops / step.tokens,
            tokens_per_update=_tokens_per_update(recipe, workload, step),
            updates=workload.steps,
            machine=machine,
            flops=flops,
            shape=(min(step.tokens, 512), width, 4 * width),
            dtype=skeleton.dtype,
            bfloat16=narrow,
        ),
        examples=workload.examples,
        updates=workload.steps,
        batch_tokens=step.tokens,
        assumes=(*workload.assumes, *narrow * ("frozen layers multiply in bfloat16 (train.frozen_products)",)),
    )


def estimate(recipe: Recipe, base: PlannedBase, machine: Machine, processes: int) -> RecipeEstimate:
    workload = find_workload(recipe, base, kind_of(base.config.model_type), processes=processes)
    dtype = planned_dtype(recipe, machine)
    skeleton = build_skeleton(recipe, base, dtype=dtype, total_steps=workload.steps or UNKNOWN_STEPS)
    on_cpu = machine.kind == "cpu"
    check_products(skeleton.model, recipe, on_gpu=not on_cpu)
    if on_cpu and takes_bfloat16(skeleton.model, recipe):
        skeleton = in_bfloat16(skeleton)
    step = step_of(recipe, base, skeleton, workload, on_cpu=on_cpu)
    runtime = 0
    if on_cpu:
        words = base.config.get_text_config().vocab_size
        runtime = empty_process_bytes(quantized=recipe.base.quantize != "none") + words * TOKENIZER_BYTES_PER_WORD
    memory = memory_of(recipe, skeleton, step, on_heap=on_cpu, runtime=runtime, processes=processes)
    return RecipeEstimate(skeleton, workload, step, memory, memory.total * (processes if on_cpu else 1))


def planned_dtype(recipe: Recipe, machine: Machine) -> torch.dtype:
    """The recipe's dtype; auto is resolved as training does on such a device."""
    if recipe.base.dtype == "auto":
        return torch.bfloat16 if machine.kind == "gpu" else torch.float32
    dtype: torch.dtype = getattr(torch, recipe.base.dtype)
    return dtype


def _tokens_per_update(recipe: Recipe, workload: Workload, step: Step) -> float:
    """Tokens that one process computes per update, on average."""
    train = recipe.train
    if workload.tokens_per_epoch is None or workload.examples is None:
        return step.tokens * train.accumulate
    mean = workload.tokens_per_epoch / workload.examples
    rows = min(train.batch_size * train.accumulate, workload.examples)
    return mean * rows * (len(workload.largest) / train.batch_size if train.packing else 1)
