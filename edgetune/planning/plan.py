"""The result of `edgetune plan`, as a value. It is read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgetune.planning.base import PlannedBase
    from edgetune.planning.disk import Disk
    from edgetune.planning.duration import Duration
    from edgetune.planning.machine import Machine
    from edgetune.planning.memory import Memory
    from edgetune.recipe.schema import Recipe


@dataclass(frozen=True)
class Suggestion:
    """Values to set (by their dotted names), their effect on training, and the memory that is needed then."""

    changes: Mapping[str, Any]
    effect: str
    needed_bytes: int
    fits: bool

    def document(self) -> dict[str, Any]:
        return {
            "set": dict(self.changes),
            "effect": self.effect,
            "needed_bytes": self.needed_bytes,
            "fits": self.fits,
        }


@dataclass(frozen=True, repr=False)
class Plan:
    """The result of `edgetune plan`. Bytes are those of one process, but `needed_bytes` is the peak of all processes
    that share the memory. `fits` is None where the device's memory is unknown. `suggestions` are changes for a recipe
    that does not fit.
    """

    recipe: Recipe
    base: PlannedBase
    dtype: str
    trainable_parameters: int
    total_parameters: int
    processes: int
    memory: Memory
    needed_bytes: int
    machine: Machine
    fits: bool | None
    disk: Disk
    duration: Duration
    examples: int | None
    updates: int | None
    batch_tokens: int
    assumes: tuple[str, ...]
    suggestions: tuple[Suggestion, ...] = ()

    def __repr__(self) -> str:
        fits = {None: "unknown device", True: "fits", False: "does not fit"}[self.fits]
        return f"<Plan {self.recipe.name}: {self.needed_bytes / 1e9:.2f} GB, {fits}>"

    def _repr_html_(self) -> str:
        from edgetune.notebook_view import terminal_html
        from edgetune.planning.plan_table import render

        return terminal_html(render(self))

    @property
    def trainable_percent(self) -> float:
        return 100 * self.trainable_parameters / self.total_parameters

    def document(self) -> dict[str, Any]:
        recipe, memory, duration = self.recipe, self.memory, self.duration
        return {
            "name": recipe.name,
            "task": recipe.task,
            "base": recipe.base.model,
            "configuration_from": self.base.origin,
            "method": recipe.method.type,
            "quantize": recipe.base.quantize,
            "dtype": self.dtype,
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "trainable_percent": round(self.trainable_percent, 6),
            "processes": self.processes,
            "memory_bytes": {**asdict(memory), "total": memory.total},
            "needed_bytes": self.needed_bytes,
            "device": asdict(self.machine),
            "fits": self.fits,
            "disk_bytes": {**asdict(self.disk), "total": self.disk.total},
            "time": asdict(duration),
            "examples": self.examples,
            "updates": self.updates,
            "largest_batch_tokens": self.batch_tokens,
            "assumes": list(self.assumes),
            "suggestions": [each.document() for each in self.suggestions],
        }
