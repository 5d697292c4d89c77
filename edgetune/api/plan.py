"""`edgetune.plan`: what a training would need, before anything is downloaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from edgetune.api.public import public
from edgetune.recipe.load import Named, Overrides, load_recipe

if TYPE_CHECKING:
    from edgetune.planning.plan import Plan
    from edgetune.recipe.schema import Recipe


@public
def plan(
    recipe: Named | Recipe,
    *,
    overrides: Overrides = (),
    device_memory: str | None = None,
    device: Literal["cpu", "gpu"] | None = None,
    processes: int = 1,
    flops: str | None = None,
) -> Plan:
    """Count what a recipe needs without its weights: parameters, memory, disk, time; and how to make it fit.

    The plan is for the device at hand, or for one with `device_memory` ("16GB"); `flops` is its speed: "312T", or a
    GPU's name such as "a100". Raises UsageError, RecipeError, and what loading data and configuration raises.
    """
    from edgetune.planning.advice import suggest
    from edgetune.planning.planning import plan_training

    loaded = load_recipe(recipe, overrides)
    made = plan_training(loaded, device_memory=device_memory, device=device, processes=processes, flops=flops)
    return replace(made, suggestions=suggest(made)) if made.fits is False else made
