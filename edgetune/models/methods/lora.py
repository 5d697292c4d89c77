"""LoRA and the initial values of its matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.errors import RecipeError
from edgetune.models.methods.adapted_model import AdaptedModel
from edgetune.models.methods.fields import by_fields
from edgetune.models.targets import check_patterns
from edgetune.recipe.methods import Lora

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor

CHANGES_THE_BASE = ("pissa", "olora")
"""Initial values that are subtracted from the base's weights."""


def lora(method: Lora, subject: AdaptedModel) -> LoraConfig:
    """https://arxiv.org/abs/2106.09685; QLoRA is the same on an NF4 base."""
    from peft import EvaConfig

    if method.init == "eva" and subject.kind == "encoder-decoder":
        raise subject.cannot(
            "method.init eva reads the inputs of all layers for the text's tokens, and the decoder of an "
            "encoder-decoder has no such inputs",
            "take default, gaussian, pissa or olora",
        )
    # LoftQ's and EVA's matrices are computed after the adapter is added (`begin`); a model without values has none.
    computed = method.init == "loftq" or (method.init in CHANGES_THE_BASE and not subject.is_real)
    start: Any = True if method.init == "default" or computed else method.init
    more = {"eva_config": EvaConfig()} if method.init == "eva" else {}
    config: LoraConfig = by_fields(method, subject, without=["init"], init_lora_weights=start, **more)
    return config


def begin(adapted: PeftModel, method: Lora, subject: AdaptedModel) -> None:
    """Set the initial values of a new adapter's matrices. Raises RecipeError."""
    check_patterns(adapted, method.rank_pattern, "rank_pattern")
    check_patterns(adapted, method.alpha_pattern, "alpha_pattern")
    if method.init in CHANGES_THE_BASE:
        _check_ranks(adapted, method, subject)
    if not subject.is_real:
        return
    if method.init in CHANGES_THE_BASE:
        remember_first_update(adapted)
    elif method.init == "loftq":
        from edgetune.models.methods.loftq import begin_loftq

        begin_loftq(adapted, subject)
    elif method.init == "eva":
        _begin_eva(adapted, subject)


def remember_first_update(adapted: PeftModel) -> None:
    """Keep the first A and B of PiSSA and OLoRA, which were subtracted from the base's weights."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    first = {name: tensor.detach().clone() for name, tensor in state.items() if _side(name) is not None}
    adapted.first_update = first


def for_original_base(state: dict[str, Tensor], first: dict[str, Tensor]) -> dict[str, Tensor]:
    """An adapter's tensors for the base without the first update -> for the published base.

    W − s·B₀·A₀ + s·B·A = W + s·[B, −B₀]·[A; A₀]: a LoRA of twice the rank, as in PiSSA's appendix
    (https://arxiv.org/abs/2404.02948). A is (r, in), B (out, r).
    """
    import torch

    converted = dict(state)
    for name, tensor in first.items():
        after, before = state[name], tensor.to(state[name])
        converted[name] = torch.cat([after, before], 0) if _side(name) == "A" else torch.cat([after, -before], 1)
    return converted


def doubled_rank(config: LoraConfig) -> LoraConfig:
    """The configuration with twice the rank, the same scale and default initial values."""
    import copy

    config = copy.deepcopy(config)
    factor = 2**0.5 if config.use_rslora else 2
    config.r *= 2
    config.lora_alpha *= factor
    config.rank_pattern = {module: 2 * rank for module, rank in config.rank_pattern.items()}
    config.alpha_pattern = {module: factor * alpha for module, alpha in config.alpha_pattern.items()}
    config.init_lora_weights = True
    return config


def _check_ranks(adapted: PeftModel, method: Lora, subject: AdaptedModel) -> None:
    """Raise RecipeError for a rank above the number of rows or columns of a weight; PEFT would lower it."""
    for path, layer in adapted.get_base_model().named_modules():
        if hasattr(layer, "lora_A") and "default" in layer.lora_A:
            most = min(layer.in_features, layer.out_features)
            if layer.r["default"] > most:
                raise subject.cannot(
                    f"method.rank is {layer.r['default']}, and method.init {method.init} has at most {most} for {path}",
                    f"use {most} or less, or method.init default",
                )


def _side(name: str) -> str | None:
    return "A" if ".lora_A." in name else "B" if ".lora_B." in name else None


def _begin_eva(adapted: PeftModel, subject: AdaptedModel) -> None:
    """A spans the directions in which the layers' inputs vary most, https://arxiv.org/abs/2410.07170."""
    from peft import initialize_lora_eva_weights

    batches = list(subject.batches or ())
    if not batches:
        raise RecipeError("method.init eva needs training data, and there is none", where=subject.name)
    rank = max([adapted.active_peft_config.r, *adapted.active_peft_config.rank_pattern.values()])
    needed = int(rank * adapted.active_peft_config.eva_config.rho)
    most = max(int(batch["attention_mask"].sum()) for batch in batches)
    if most < needed:
        raise RecipeError(
            f"method.init eva needs batches of at least {needed} tokens for rank {rank}, and the longest has {most}",
            where=subject.name,
            remedy="raise train.batch_size, or lower method.rank",
        )
    device = adapted.device
    batches = [{name: batch[name].to(device) for name in ("input_ids", "attention_mask")} for batch in batches]
    # All of several processes see the same batches.
    initialize_lora_eva_weights(adapted, batches, gather_distributed_inputs=False, show_progress_bar=False)
