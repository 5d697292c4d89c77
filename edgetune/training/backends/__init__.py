"""Backends load the model and speed up its layers: one file each, chosen here.

Data, loss, optimizer and run directory are the same with every backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.errors import MissingComponent, RecipeError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from edgetune.recipe.schema import Recipe


@dataclass(frozen=True)
class Backend:
    """`load(recipe, prepared, total_steps=…)` returns the base with a fresh adapter, seeded by the recipe.

    `total_steps` is the number of optimizer updates, which a schedule of ranks (AdaLoRA) spans.
    """

    name: str
    load: Callable[..., PeftModel | PreTrainedModel]


def choose_backend(recipe: Recipe, model_type: str) -> Backend:
    """The backend that train.backend names; for `auto` the faster one that supports the recipe, with a note of why.

    Call it before the weights are loaded. Raises MissingComponent when Unsloth is asked for and cannot be imported,
    RecipeError when it is asked for and does not support the recipe.
    """
    from edgetune.training.backends import transformers, unsloth

    plain = Backend("transformers", transformers.load_adapted_model)
    if recipe.train.backend == "transformers":
        return plain
    if recipe.train.backend == "unsloth":
        if (reason := unsloth.not_importable()) is not None:
            raise MissingComponent(
                f"train.backend is unsloth, and {reason}",
                remedy=f"run: {unsloth.INSTALL}; or set train.backend to transformers",
            )
        if (reason := unsloth.unsupported(recipe, model_type)) is not None:
            raise RecipeError(
                f"train.backend is unsloth, which cannot do this: {reason}",
                where=recipe.name,
                remedy="change it, or set train.backend to auto or transformers",
            )
        return Backend("unsloth", unsloth.load_adapted_model)
    reason = unsloth.not_worth_it() or unsloth.unsupported(recipe, model_type) or unsloth.not_importable()
    if reason is None:
        events.note(
            "backend: unsloth, which is installed and supports this recipe; train.backend: transformers avoids it"
        )
        return Backend("unsloth", unsloth.load_adapted_model)
    events.note(f"backend: transformers; not unsloth: {reason}")
    return plain
