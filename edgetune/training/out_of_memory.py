"""Turns failed allocations of torch, NumPy and the system into one error with remedies."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from edgetune.errors import EdgetuneError, OutOfMemory
from edgetune.recipe.methods import Full, PrefixTuning
from edgetune.recipe.schema import Recipe
from edgetune.training.run_directory import RunDirectory, checkpoint_step

_WORDS = (
    "out of memory",  # torch.OutOfMemoryError, CUDA errors, cuBLAS, NCCL
    "can't allocate memory",  # DefaultCPUAllocator
    "not enough memory",
    "cannot allocate memory",  # mmap, safetensors
    "bad_alloc",
    "cublas_status_alloc_failed",
    "unable to allocate",  # NumPy
)


@contextmanager
def explain_out_of_memory(recipe: Recipe, run: RunDirectory, *, loading: bool) -> Iterator[None]:
    """Raise OutOfMemory for an allocation that fails inside, while `loading` the model or while training it.

    The system's out-of-memory killer cannot be caught: it ends the process with exit code 137.
    """
    try:
        yield
    except EdgetuneError:
        raise
    except (MemoryError, RuntimeError, OSError) as problem:
        if not is_out_of_memory(problem):
            raise
        raise OutOfMemory(
            f"memory ran out while {'loading' if loading else 'training'} {recipe.base.model}"
            f"{'' if loading else _what_is_kept(run)}",
            where=recipe.name,
            remedy=f"{'; '.join(_savings(recipe, loading=loading))}; edgetune plan shows the memory of each part",
        ) from problem


def is_out_of_memory(problem: BaseException) -> bool:
    """True for any kind of failed allocation."""
    if isinstance(problem, MemoryError) or getattr(problem, "errno", None) == errno.ENOMEM:
        return True
    return any(words in str(problem).lower() for words in _WORDS)


def _what_is_kept(run: RunDirectory) -> str:
    checkpoint = run.last_checkpoint()
    if checkpoint is None:
        return ", before the first checkpoint"
    return (
        f"; {checkpoint} is saved, and --resume continues after step {checkpoint_step(checkpoint)} on a machine with "
        "more memory (with this recipe only: a changed recipe starts again)"
    )


def _savings(recipe: Recipe, *, loading: bool) -> list[str]:
    """Changes of the recipe that need less memory, those with the least effect on the result first."""
    train, base, savings = recipe.train, recipe.base, []
    if not loading:
        if train.batch_size > 1:
            savings.append(
                f"set train.batch_size to 1 and train.accumulate to {train.batch_size * train.accumulate} (the same "
                "updates)"
            )
        if not train.gradient_checkpointing and not isinstance(recipe.method, PrefixTuning):
            savings.append("set train.gradient_checkpointing to true")
        longest = recipe.data.max_length
        savings.append(f"lower data.max_length (now {longest if isinstance(longest, int) else 'by percentile'})")
        if train.optimizer in ("adamw", "paged_adamw") and isinstance(recipe.method, Full):
            savings.append("set train.optimizer to paged_adamw_8bit or adafactor")
    if isinstance(recipe.method, Full):
        savings.append("train an adapter (method lora) instead of every weight")
    elif base.quantize == "none":
        savings.append("set base.quantize to nf4")
    if base.dtype == "float32":
        savings.append("set base.dtype to bfloat16")
    savings.append("use a smaller base.model")
    return savings
