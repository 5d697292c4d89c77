"""Every recipe that ships can be planned anywhere."""

from __future__ import annotations

import pytest
import torch

from edgetune.planning import planning
from edgetune.planning.base import PlannedBase, find_base
from edgetune.planning.planning import plan_training
from edgetune.planning.shipped import find_shipped
from edgetune.planning.skeleton import build_skeleton
from edgetune.planning.step import with_depth
from edgetune.recipe.load import load_recipe, shipped_recipes
from edgetune.recipe.schema import Base, Recipe

RECIPES = {name: load_recipe(name) for name in sorted(shipped_recipes())}
LAYERS = 2
"""A base with so many layers has every module that a method can be put on."""


def family(recipe: Recipe) -> str:
    """The architecture of a recipe's base; a base whose configuration does not ship is one of its own."""
    shipped = find_shipped(recipe.base.model)
    return recipe.base.model if shipped is None else shipped.settings["model_type"]


def variant(recipe: Recipe) -> tuple[str, ...]:
    """What decides which code plans a recipe."""
    return family(recipe), recipe.method.type, recipe.base.quantize, recipe.task, recipe.base.head


def demand(name: str) -> tuple[int, bool, int]:
    """Orders recipes by the work of a step, and then by the size of their adapter."""
    recipe = RECIPES[name]
    shipped = find_shipped(recipe.base.model)
    tokens = recipe.train.batch_size * recipe.data.max_length if isinstance(recipe.data.max_length, int) else 0
    everywhere = getattr(recipe.method, "targets", None) == "all-linear"
    return tokens * (0 if shipped is None else shipped.parameters), everywhere, getattr(recipe.method, "rank", 0)


BY_DEMAND = sorted(RECIPES, key=demand)
OF_METHODS = {(RECIPES[name].method.type, RECIPES[name].base.quantize): name for name in BY_DEMAND}
OF_FAMILIES = {(family(RECIPES[name]), RECIPES[name].base.quantize): name for name in BY_DEMAND}
LARGEST = sorted({*OF_METHODS.values(), *OF_FAMILIES.values()})
"""The recipe of each method, and of each family of bases, that needs most; with a quantized base and without."""

SEEN = {variant(RECIPES[name]) for name in LARGEST}
OTHERS = sorted({variant(RECIPES[name]): name for name in BY_DEMAND if variant(RECIPES[name]) not in SEEN}.values())
"""One recipe of each other variant."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def shallow_base(base: Base) -> PlannedBase:
    return with_depth(find_base(base), LAYERS)


def assert_counted(recipe: Recipe, trainable: int, total: int) -> None:
    assert 0 < trainable <= total
    assert (trainable == total) == (recipe.method.type == "full")


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_recipe_goes_with_a_base_that_is_known_without_a_network(name: str):
    base = shallow_base(RECIPES[name].base)
    skeleton = build_skeleton(RECIPES[name], base, dtype=torch.float32, total_steps=planning.UNKNOWN_STEPS)
    assert base.origin in ("shipped", "files", "cache")
    assert 0 < skeleton.trainable_parameters <= skeleton.total_parameters
    assert (skeleton.trainable_parameters == skeleton.total_parameters) == (RECIPES[name].method.type == "full")


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_recipes_of_each_method_and_family_fit_where_they_should(name: str):
    plan = plan_training(RECIPES[name], device_memory="80GB", flops="a100")
    assert 0 < plan.trainable_parameters <= plan.total_parameters
    assert plan.memory.total > plan.memory.weights > 0
    assert plan.fits


@pytest.mark.parametrize("name", OTHERS)
def test_every_method_is_planned_with_every_family_task_and_head(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planning, "find_base", shallow_base)
    plan = plan_training(RECIPES[name], device_memory="80GB", flops="a100")
    assert plan.memory.total > plan.memory.weights > 0
    assert plan.memory.activations > 0
