"""A recipe's method section -> PEFT's configuration, field by field."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from edgetune.models.methods.adapted_model import AdaptedModel

_PEFT_TYPES = {"prefix": "prefix_tuning", "prompt": "prompt_tuning", "p-tuning": "p_tuning"}
"""PEFT's names of methods, where they differ from the recipe's."""

_LORA = {"alpha": "lora_alpha", "dropout": "lora_dropout"}
_PEFT_FIELDS: Mapping[str, Mapping[str, str]] = {
    "lora": {**_LORA, "rslora": "use_rslora", "dora": "use_dora"},
    "adalora": {**_LORA, "init_rank": "init_r", "target_rank": "target_r", "delta_t": "deltaT"},
    "hira": {"dropout": "hira_dropout"},
    "shira": {"mask_seed": "random_seed"},
    "oft": {"block_size": "oft_block_size", "dropout": "module_dropout"},
    "vera": {"dropout": "vera_dropout", "projection_seed": "projection_prng_key"},
    "prefix": {"projection": "prefix_projection", "hidden_size": "encoder_hidden_size"},
    "p-tuning": {
        "hidden_size": "encoder_hidden_size",
        "layers": "encoder_num_layers",
        "dropout": "encoder_dropout",
    },
}
"""PEFT's names of fields, where they differ from the recipe's."""


def by_fields(method: Any, subject: AdaptedModel, *, without: Collection[str] = (), **more: Any) -> Any:
    """PEFT's configuration with the fields of the recipe's section, except those in `without`, and with `more`.

    Raises RecipeError for targets that the model lacks.
    """
    kind = method.type
    names = {"rank": "r", "virtual_tokens": "num_virtual_tokens", **_PEFT_FIELDS.get(kind, {})}
    said = method.model_dump(exclude={"type", "targets", *without})
    settings = {names.get(name, name): value for name, value in said.items()}
    if hasattr(method, "targets"):
        settings["target_modules"] = subject.targets(method.targets)
    return peft_config_class(kind)(**subject.common, **settings, **more)


def peft_config_class(name: str) -> Any:
    """PEFT's configuration class for the method of this name."""
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(_PEFT_TYPES.get(name, name).upper())]
