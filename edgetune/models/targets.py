"""Chooses the modules that a method adapts: those that the recipe names, or those that suit the base's family."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from edgetune.errors import RecipeError
from edgetune.models.families import find_family

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Targets = list[str] | Literal["all-linear"]

_LAST_OF_FEEDFORWARD = frozenset(
    {"down_proj", "wo", "output.dense", "lin2", "fc2", "fc_out", "w2", "dense_4h_to_h", "mlp.dense_4h_to_h"}
)
"""Names of a feed-forward block's last layer, whose input IA³ scales."""


def default_targets(family: str) -> Targets:
    """Queries and values of encoders and encoder-decoders; all linear layers of decoders, without the output layer."""
    return list(find_family(family).query_and_value) or "all-linear"


def attention_targets(family: str, model: PreTrainedModel) -> list[str]:
    """Queries and values by name, for methods that are too costly or unsuitable for every linear layer."""
    known = find_family(family).query_and_value
    if known:
        return list(known)
    modules = {path.rsplit(".", 1)[-1] for path, _ in model.named_modules()}
    return ["qkv_proj"] if "qkv_proj" in modules and not modules >= {"q_proj", "v_proj"} else ["q_proj", "v_proj"]


def norm_targets(model: PreTrainedModel) -> list[str]:
    """Names of the normalization layers."""
    norms = {path.rsplit(".", 1)[-1] for path, module in model.named_modules() if "Norm" in type(module).__name__}
    return sorted(norms)


def ia3_targets(family: str) -> tuple[list[str], list[str]]:
    """Modules that IA³ scales in this family, and those of them whose input it scales; PEFT's where it has them."""
    from peft.utils.constants import (
        TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
        TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
    )

    known = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(family)
    if known is not None:
        return list(known), list(TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(family, []))
    targets = find_family(family).key_value_feedforward
    return list(targets), feedforward_among(targets)


def feedforward_among(targets: Sequence[str]) -> list[str]:
    """Those of the targets that are the last layer of a feed-forward block."""
    return [target for target in targets if target in _LAST_OF_FEEDFORWARD or target.endswith(".down_proj")]


def check_targets(model: PreTrainedModel, targets: Targets | None, head: Sequence[str]) -> None:
    """Raise RecipeError for a target that the model lacks; PEFT only needs one that matches.

    `head` names the modules of a new classification head.
    """
    if not isinstance(targets, list):
        return
    if not targets:
        raise RecipeError("method.targets is empty", where=type(model).__name__, remedy=_linear_modules(model))
    paths = [path for path, _ in model.named_modules() if path]
    for target in targets:
        found = [path for path in paths if path == target or path.endswith(f".{target}")]
        if not found:
            raise RecipeError(
                f"method.targets names {target}, which this model does not have",
                where=type(model).__name__,
                remedy=_linear_modules(model),
            )
        if all(path.split(".")[0] in head for path in found):
            raise RecipeError(
                f"method.targets names {target}, which belongs to the new classification head",
                where=type(model).__name__,
                remedy="leave it out: the head is trained whole",
            )


def check_patterns(adapted: PeftModel, patterns: Iterable[str], field: str) -> None:
    """Raise RecipeError for a pattern that matches no adapted module, which PEFT would ignore."""
    modules = adapted.base_model.targeted_module_names
    for pattern in patterns:
        if not any(re.match(rf"(.*\.)?({pattern})$", path) for path in modules):
            names = sorted({path.rsplit(".", 1)[-1] for path in modules})
            raise RecipeError(
                f"method.{field} names {pattern}, which matches none of the adapted modules",
                where=type(adapted.get_base_model()).__name__,
                remedy=f"those are {', '.join(names)}",
            )


def _linear_modules(model: PreTrainedModel) -> str:
    from torch import nn

    linear = {path.rsplit(".", 1)[-1] for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    return f"its linear modules are {', '.join(sorted(linear))}"
