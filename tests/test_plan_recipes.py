"""Every recipe that ships can be planned anywhere."""

from __future__ import annotations

import pytest

from edgetune.plan.planning import plan_training
from edgetune.recipe.load import load_recipe, shipped_recipes


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_can_be_planned_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    plan = plan_training(load_recipe(name), device_memory="80GB", flops="a100")
    assert plan.base.origin in ("shipped", "files", "cache")
    assert 0 < plan.trainable_parameters < plan.total_parameters
    assert plan.memory.total > plan.memory.weights > 0
    assert plan.fits
