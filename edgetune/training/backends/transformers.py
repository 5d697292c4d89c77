"""Plain Transformers and PEFT: every model, every method, CPU and GPU."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.errors import RecipeError
from edgetune.recipe.methods import Full
from edgetune.recipe.schema import Recipe
from edgetune.training import processes
from edgetune.training.prepare import Prepared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel


def load_adapted_model(
    recipe: Recipe, prepared: Prepared, *, total_steps: int | None = None
) -> PeftModel | PreTrainedModel:
    """The base with a fresh adapter (with method full: all of it trainable), in the types that training uses.

    Seeded: the same recipe gives the same first weights. `total_steps` is the length of AdaLoRA's schedule.
    """
    from transformers import set_seed

    from edgetune.models.load import load_model, resolve_dtype
    from edgetune.training.precision import set_trained_dtype

    events.note(f"loading {recipe.base.model}")
    base, classifies = recipe.base, recipe.base.head == "classification"
    dtype = resolve_dtype(base.dtype)
    set_seed(recipe.train.seed)
    model = load_model(
        prepared.files,
        dtype=dtype,
        quantize=base.quantize,
        double_quantization=base.double_quantization,
        labels=recipe.data.labels if classifies else None,
        on_gpu=recipe.train.parallel != "fsdp" or processes.world_size() == 1,
    )
    if recipe.train.packing:
        _check_packing(model)
    model = ready_for_adapter(model, recipe)
    set_seed(recipe.train.seed)
    if not isinstance(recipe.method, Full):
        model = _adapt(model, recipe, prepared, total_steps)
    set_trained_dtype(model, recipe, dtype)
    return model


def ready_for_adapter(model: PreTrainedModel, recipe: Recipe) -> PreTrainedModel:
    """Prepare the base for an adapter: gradients pass through it, and quantized layers compute in safe types."""
    from peft import prepare_model_for_kbit_training

    if recipe.base.quantize != "none":
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=recipe.train.gradient_checkpointing)
    if recipe.train.gradient_checkpointing and not isinstance(recipe.method, Full):
        model.enable_input_require_grads()
    return model


def _adapt(model: PreTrainedModel, recipe: Recipe, prepared: Prepared, total_steps: int | None) -> PeftModel:
    from edgetune.models.adapters import add_adapter

    return add_adapter(
        model,
        recipe.method,
        base=recipe.base.model,
        classifies=recipe.base.head == "classification",
        total_steps=total_steps,
        text_ids=partial(prepared.tokenizer.encode, add_special_tokens=False),
        batches=_batches(recipe, prepared),
        files=prepared.files,
    )


def _batches(recipe: Recipe, prepared: Prepared) -> Iterator[dict[str, Tensor]]:
    """Training data in the order of the file, padded, for methods that start from it (EVA)."""
    from edgetune.training.objectives.padding import attention_mask, pad_rows

    texts = [example.input_ids for example in prepared.train.examples]
    for start in range(0, len(texts), recipe.train.batch_size):
        batch = texts[start : start + recipe.train.batch_size]
        yield {
            "input_ids": pad_rows(batch, prepared.tokenizer.pad_token_id),
            "attention_mask": attention_mask(batch),
        }


def _check_packing(model: PreTrainedModel) -> None:
    from edgetune.models.families import families_with
    from edgetune.training.objectives.packing import can_pack

    if not can_pack(model.config):
        raise RecipeError(
            f"train.packing is tested only for {', '.join(families_with('packs'))} without attention windows, and "
            f"this base is of the family {model.config.model_type}",
            where="train.packing",
            remedy="remove it; train.group_by_length also reduces padding",
        )
