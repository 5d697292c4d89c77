"""A recipe's method -> PEFT's configuration. A method is one function and one line in METHODS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgetune.errors import RecipeError
from edgetune.recipe.methods import Ia3, Lora, Method

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel


def lora(method: Lora) -> PeftConfig:
    """https://arxiv.org/abs/2106.09685; QLoRA is the same on an NF4 base."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules="all-linear" if method.targets is None else method.targets,
        use_rslora=method.rslora,
        use_dora=method.dora,
    )


def ia3(method: Ia3) -> PeftConfig:
    """https://arxiv.org/abs/2205.05638."""
    from peft import IA3Config

    targets = method.targets or ["k_proj", "v_proj", "down_proj"]
    feedforward = ["down_proj"] if method.feedforward is None else method.feedforward
    return IA3Config(task_type="CAUSAL_LM", target_modules=targets, feedforward_modules=feedforward)


METHODS: dict[str, Callable[[Any], PeftConfig]] = {"lora": lora, "ia3": ia3}


def add_adapter(model: PreTrainedModel, method: Method, *, base: str) -> PeftModel:
    """`model` with a fresh adapter on it; only the adapter is trainable. `base` is recorded as the adapter's base.

    Raises RecipeError when the method's targets are not modules of this model, or not of a kind that it can adapt.
    """
    from peft import get_peft_model

    config = METHODS[method.type](method)
    if isinstance(method, Lora | Ia3):
        _check_targets(model, method)
    try:
        adapted = get_peft_model(model, config)
    except ValueError as problem:
        reason = str(problem).strip().split("\n")[0]
        raise RecipeError(f"method cannot adapt this model ({reason})", where=type(model).__name__) from problem
    config.base_model_name_or_path = base
    return adapted


def _check_targets(model: PreTrainedModel, method: Lora | Ia3) -> None:
    """PEFT is content when one target matches; a recipe that names a module which is not there is mistaken."""
    if not isinstance(method.targets, list):
        return
    modules = [name for name, _ in model.named_modules() if name]
    for target in method.targets:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            from torch import nn

            linear = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, nn.Linear)}
            raise RecipeError(
                f"method.targets names {target}, which this model does not have",
                where=type(model).__name__,
                remedy=f"its linear modules are {', '.join(sorted(linear))}",
            )
