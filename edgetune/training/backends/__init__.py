"""Who loads the model and makes its layers quick: one file per backend, chosen here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgetune import events
from edgetune.errors import RecipeError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from edgetune.models.families import ModelKind
    from edgetune.recipe.schema import Recipe
    from edgetune.training.prepare import Prepared


class Backend(Protocol):
    """Loads a base with a fresh adapter. Data, loss, optimizer and run directory are the same with every backend."""

    @property
    def name(self) -> str:
        """What a recipe says as train.backend, and summary.json as backend."""

    def unsupported(self, recipe: Recipe, kind: ModelKind, model_type: str) -> str | None:
        """What of the recipe, on a base of this kind and family, the backend cannot do, naming the field; or None."""

    def load(
        self, recipe: Recipe, prepared: Prepared, *, total_steps: int | None = None
    ) -> PeftModel | PreTrainedModel:
        """The base with a fresh adapter, seeded: the same recipe gives the same first weights.

        `total_steps` are the optimizer updates that a schedule of ranks (AdaLoRA) spans.
        """


class Transformers:
    """Plain Transformers and PEFT: every model, every method, CPU and GPU."""

    name = "transformers"

    def unsupported(self, recipe: Recipe, kind: ModelKind, model_type: str) -> None:
        """Nothing."""

    def load(
        self, recipe: Recipe, prepared: Prepared, *, total_steps: int | None = None
    ) -> PeftModel | PreTrainedModel:
        """See edgetune/training/backends/transformers.py."""
        from edgetune.training.backends.transformers import load_adapted_model

        return load_adapted_model(recipe, prepared, total_steps=total_steps)


def choose_backend(recipe: Recipe, kind: ModelKind, model_type: str) -> Backend:
    """The backend that train.backend names; for `auto` the quicker one that can do it, with a note of why.

    Call it before the weights are loaded. Raises MissingComponent when Unsloth is asked for and cannot be imported,
    RecipeError when it is asked for and cannot do what the recipe says.
    """
    from edgetune.training.backends.unsloth import Unsloth

    transformers, unsloth = Transformers(), Unsloth()
    wanted = recipe.train.backend
    if wanted == "transformers":
        return transformers
    if wanted == "unsloth":
        unsloth.require()
        reason = unsloth.unsupported(recipe, kind, model_type)
        if reason is not None:
            raise RecipeError(
                f"train.backend is unsloth, which cannot do this: {reason}",
                where=recipe.name,
                remedy="change it, or set train.backend to auto or transformers",
            )
        return unsloth
    reason = unsloth.not_worth_it() or unsloth.unsupported(recipe, kind, model_type) or unsloth.not_importable()
    if reason is None:
        events.note("backend: unsloth, because it is installed and can do this; train.backend: transformers avoids it")
        return unsloth
    events.note(f"backend: transformers; not unsloth: {reason}")
    return transformers
