"""Checks memory and disk space before an export."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgetune.errors import InputError, OutputError
from edgetune.gguf.streaming import BLOCK_VALUES
from edgetune.gguf.tensor_plan import TensorPlan
from edgetune.gguf.tensor_types import tensor_bytes
from edgetune.usage import available_memory_bytes

_BLOCK_COPIES = 4
"""Arrays of one block that a thread holds at once: stored, float32, rounded, and the adapter's update."""

_FLOAT32_BYTES = 4


def check_capacity(plan: TensorPlan, out: Path, *, threads: int) -> None:
    """Raise OutputError if the disk, InputError if the memory is too small for the export."""
    size = sum(tensor_bytes(tensor.shape, plan.types[tensor.name]) for tensor in plan.tensors)
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OutputError(
            f"the file needs {_amount(size)}, but the disk has only {_amount(free)} left",
            where=out,
            remedy="free some space or choose another --out",
        )
    widest = max((tensor.shape[-1] * tensor.rows_together for tensor in plan.tensors), default=0)
    need = threads * _BLOCK_COPIES * _FLOAT32_BYTES * max(BLOCK_VALUES, widest) + plan.folded.working_bytes
    available = available_memory_bytes()
    if available is not None and available < need:
        raise InputError(
            f"the export needs about {_amount(need)} of memory, but only {_amount(available)} are available",
            where=plan.folded.source.name,
            remedy="close other programs, or use fewer --threads",
        )


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
