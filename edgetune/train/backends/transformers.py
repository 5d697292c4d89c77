"""Plain Transformers and PEFT: every model, every method, CPU and GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune import console
from edgetune.recipe.schema import Recipe
from edgetune.train.prepare import Prepared

if TYPE_CHECKING:
    from peft import PeftModel


def load_adapted_model(recipe: Recipe, prepared: Prepared) -> PeftModel:
    """The base with a fresh adapter, seeded: the same recipe gives the same first weights."""
    from peft import prepare_model_for_kbit_training
    from transformers import set_seed

    from edgetune.models.adapters import add_adapter
    from edgetune.models.load import load_model, resolve_dtype

    console.note(f"loading {recipe.base.model}")
    base = recipe.base
    model = load_model(
        prepared.files,
        dtype=resolve_dtype(base.dtype),
        quantize=base.quantize,
        double_quantization=base.double_quantization,
    )
    if base.quantize != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=recipe.train.gradient_checkpointing)
    elif recipe.train.gradient_checkpointing:
        model.enable_input_require_grads()
    set_seed(recipe.train.seed)
    return add_adapter(model, recipe.method, base=recipe.base.model)
