"""Suggests changes to a recipe that does not fit. Each suggestion is planned, so its need is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from edgetune.errors import EdgetuneError
from edgetune.planning.plan import Plan, Suggestion
from edgetune.planning.planning import estimate
from edgetune.recipe.methods import Full, PrefixTuning
from edgetune.recipe.schema import Recipe

SHORTEST_TOKENS = 256
"""No suggestion cuts examples below this."""


def suggest(plan: Plan) -> tuple[Suggestion, ...]:
    """Single changes that need less than the plan, least effect first; then combinations until one fits."""
    single = [found for changes, effect in _options(plan.recipe) if (found := _planned(plan, changes, effect))]
    helpful = [each for each in single if each.needed_bytes < plan.needed_bytes]
    joint: list[Suggestion] = []
    for number in range(2, len(helpful) + 1):
        if any(each.fits for each in (*helpful, *joint)):
            break
        together = {name: value for each in helpful[:number] for name, value in each.changes.items()}
        found = _planned(plan, together, "together")
        joint = [found] if found is not None else joint
    return (*helpful, *joint)


def _options(recipe: Recipe) -> list[tuple[dict[str, Any], str]]:
    train, base, method = recipe.train, recipe.base, recipe.method
    options: list[tuple[dict[str, Any], str]] = []
    if train.batch_size > 1:
        joint = train.batch_size * train.accumulate
        options.append(({"train.batch_size": 1, "train.accumulate": joint}, "the same updates, in smaller steps"))
    if not train.gradient_checkpointing and not isinstance(method, PrefixTuning):
        options.append(({"train.gradient_checkpointing": True}, "the same updates, about a third slower"))
    if train.optimizer in ("adamw", "paged_adamw"):
        options.append(({"train.optimizer": "adamw_8bit"}, "optimizer state in 8 bits"))
    if base.dtype == "float32":
        options.append(({"base.dtype": "bfloat16"}, "weights and compute in 16 bits"))
    if base.quantize == "none" and not isinstance(method, Full):
        options.append(({"base.quantize": "nf4"}, "the frozen base in 4 bits"))
    longest = recipe.data.max_length
    if isinstance(longest, int) and longest // 2 >= SHORTEST_TOKENS:
        options.append(({"data.max_length": longest // 2}, "longer examples are cut"))
    if isinstance(method, Full):
        options.append(({"method": {"type": "lora"}}, "an adapter is trained instead of every weight"))
    return options


def _planned(plan: Plan, changes: Mapping[str, Any], effect: str) -> Suggestion | None:
    """The suggestion of these changes; None where they are impossible together."""
    assert plan.machine.memory_bytes is not None
    try:
        recipe = _changed(plan.recipe, changes)
        needed = estimate(recipe, plan.base, plan.machine, plan.processes).needed_bytes
    except (ValidationError, EdgetuneError):
        return None
    return Suggestion(changes, effect, needed, needed <= plan.machine.memory_bytes)


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    values = recipe.model_dump(mode="json")
    for name, value in changes.items():
        *sections, last = name.split(".")
        place = values
        for section in sections:
            place = place[section]
        place[last] = value
    return Recipe.model_validate(values)
