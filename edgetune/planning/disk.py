"""The disk space of a training."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgetune.planning.base import PlannedBase
from edgetune.planning.memory import optimizer_bytes
from edgetune.planning.skeleton import Skeleton
from edgetune.recipe.methods import Full
from edgetune.recipe.schema import Recipe

CHECKPOINTS = 3
"""Two are kept while the next one is written."""

EXPORT_BITS = 5.0
"""Bits a weight of a Q4_K_M file: 0.67 GB for 1.07 billion weights of a Llama with a vocabulary of 128,256."""


@dataclass(frozen=True)
class Disk:
    """Bytes. `download` is 0 where the weights are here; `export` is a Q4_K_M GGUF, None for bases without one."""

    download: int
    result: int
    checkpoints: int
    export: int | None

    @property
    def total(self) -> int:
        return self.download + self.result + self.checkpoints + (self.export or 0)


def disk_of(recipe: Recipe, base: PlannedBase, skeleton: Skeleton) -> Disk:
    """The download of the base, the result of training (without tokenizers), its checkpoints, and an export."""
    base_parameters = skeleton.total_parameters
    if not isinstance(recipe.method, Full):
        base_parameters -= skeleton.trainable_parameters
    stored = getattr(base.config, "dtype", None) or torch.float32
    result = skeleton.trained_bytes
    state = optimizer_bytes(recipe, skeleton.trained)
    return Disk(
        download=0 if base.has_weights else base_parameters * stored.itemsize,
        result=result,
        checkpoints=CHECKPOINTS * (result + state),
        export=round(base_parameters * EXPORT_BITS / 8) if skeleton.kind == "decoder" else None,
    )
