"""Any other method of PEFT by its PEFT name, with the fields of its PEFT configuration."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from edgetune.errors import RecipeError
from edgetune.models.methods.adapted_model import AdaptedModel
from edgetune.models.methods.fields import peft_config_class
from edgetune.models.methods.prompts import check_cache, check_virtual_tokens
from edgetune.models.targets import attention_targets, norm_targets
from edgetune.recipe.methods import OtherPeft
from edgetune.recipe.yaml_input import nearest

if TYPE_CHECKING:
    from peft import PeftConfig

_NOT_THE_RECIPES = frozenset(
    {
        *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
        *("inference_mode", "target_modules", "modules_to_save", "tokenizer_name_or_path", "tokenizer_kwargs"),
        *("token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"),
    }
)
"""Fields that follow from the model and the task, and the targets, which have their own key."""

_PEFT_CHOOSES = ("adaption_prompt", "osf", "trainable_tokens")
"""Methods that change whole attention blocks, all linear layers or embeddings: PEFT chooses their modules."""


def other_peft(method: OtherPeft, subject: AdaptedModel) -> PeftConfig:
    """Raises RecipeError for a field that the method's configuration does not have."""
    from peft import PromptLearningConfig

    config_class = peft_config_class(method.type)
    fields = {field.name for field in dataclasses.fields(config_class)}
    allowed = sorted(fields - _NOT_THE_RECIPES)
    for name in method.fields:
        if name not in allowed:
            instead = " (write it as targets)" if name == "target_modules" else nearest(name, allowed)
            raise RecipeError(
                f"method.{name} is no field of {method.type}{instead}",
                where=subject.name,
                remedy=f"known here: {', '.join(['targets', *allowed])}",
            )
    settings: dict[str, Any] = {name: value for name, value in subject.common.items() if name in fields}
    if subject.head and "modules_to_save" not in fields:
        raise subject.cannot(f"method {method.type} cannot train a classification head", "use another method")
    if issubclass(config_class, PromptLearningConfig):
        check_virtual_tokens(method.fields.get("num_virtual_tokens") or 1, subject)
        check_cache(subject)
    if "target_modules" in fields:
        settings["target_modules"] = _targets(method, subject)
    elif method.targets is not None:
        raise RecipeError(f"method {method.type} has no targets", where=subject.name, remedy="leave them out")
    return config_class(**settings, **method.fields)


def _targets(method: OtherPeft, subject: AdaptedModel) -> Any:
    """The recipe's; or what suits the method: norms, value projections, or queries and values."""
    if method.targets is not None:
        return subject.targets(method.targets)
    if method.type in _PEFT_CHOOSES:
        return None
    if method.type == "ln_tuning":
        return norm_targets(subject.model)
    projections = attention_targets(subject.family, subject.model)
    return projections[-1:] if method.type == "beft" else projections
