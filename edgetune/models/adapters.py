"""Adds the adapter of a recipe's method to a model, and saves it so that it fits the published base."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.errors import EdgetuneError, MissingComponent, RecipeError, first_line_of
from edgetune.models.load import head_modules
from edgetune.models.locate import ModelFiles
from edgetune.models.methods import BEGINNINGS, METHODS
from edgetune.models.methods.adalora import is_adalora
from edgetune.models.methods.adapted_model import AdaptedModel, TextIds
from edgetune.recipe.methods import Full, Method

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel


def add_adapter(
    model: PreTrainedModel,
    method: Method,
    *,
    base: str,
    classifies: bool = False,
    total_steps: int | None = None,
    text_ids: TextIds | None = None,
    batches: Iterable[dict[str, Tensor]] | None = None,
    files: ModelFiles | None = None,
    seed: int | None = None,
) -> PeftModel:
    """`model` with a new adapter, of which only the adapter is trainable, and the head if it `classifies`.

    `base` is recorded as the adapter's base. AdaLoRA needs `total_steps`, the updates of the whole training; prompt
    tuning with an init_text needs `text_ids`, its tokenizer; EVA needs `batches` of training data (input_ids,
    attention_mask); LoftQ needs the base's `files`. Random values come from `seed`, or from torch's generator.

    On the meta device and under FakeTensorMode the parameters have their shapes, and nothing is computed.

    Raises RecipeError when the method does not work with this model, MissingComponent when it needs another package.
    """
    from peft import get_peft_model

    if isinstance(method, Full):
        raise ValueError("full fine-tuning has no adapter")
    head = tuple(head_modules(model)) if classifies else ()
    subject = AdaptedModel(model, head, total_steps, text_ids, batches, files)
    if seed is not None:
        import torch

        torch.manual_seed(seed)
    with _explained(subject):
        config = METHODS[method.type](method, subject)
        adapted = get_peft_model(model, config)
        if method.type in BEGINNINGS:
            BEGINNINGS[method.type](adapted, method, subject)
    adapted.active_peft_config.base_model_name_or_path = base
    return adapted


def save_adapter(model: PeftModel, folder: Path, *, state_dict: dict[str, Tensor] | None = None) -> None:
    """Write the adapter in PEFT's format, for the published base.

    PiSSA and OLoRA train on a base from which their first update was subtracted; their adapter becomes a LoRA of twice
    the rank. `state_dict` is the whole model's where several processes share it.
    """
    first = getattr(model, "first_update", None)
    if first is None:
        with warnings.catch_warnings():
            if is_adalora(model):  # PEFT reports a module whose ranks are all cut as incomplete.
                warnings.filterwarnings("ignore", message=".* have invalid shape")
            # By default, PEFT asks the hub here whether the base's vocabulary was changed.
            model.save_pretrained(folder, save_embedding_layers=False, state_dict=state_dict)
        return
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    from edgetune.models.methods.lora import doubled_rank, for_original_base

    state = get_peft_model_state_dict(model, state_dict=state_dict, save_embedding_layers=False)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in for_original_base(state, first).items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = doubled_rank(model.active_peft_config)
    config.inference_mode = True
    config.save_pretrained(str(folder))


@contextmanager
def _explained(subject: AdaptedModel) -> Iterator[None]:
    """Turn PEFT's errors about a method and a model into one line, and hide its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except EdgetuneError:
        raise
    except ImportError as problem:
        raise MissingComponent(f"method needs another package: {first_line_of(problem)}") from problem
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as problem:
        raise RecipeError(f"method cannot adapt this model ({first_line_of(problem)})", where=subject.name) from problem
