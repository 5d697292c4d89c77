"""AdaLoRA: LoRA in the form of an SVD, whose ranks are cut in training, https://arxiv.org/abs/2303.10512.

Its schedule counts optimizer updates from 1. The training loop calls `after_update` after each of them, before it
clears the gradients, and adds `orthogonality` to the loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import RecipeError
from edgetune.models.methods.adapted_model import AdaptedModel
from edgetune.models.methods.fields import by_fields
from edgetune.recipe.methods import AdaLora

if TYPE_CHECKING:
    from peft import AdaLoraConfig, PeftModel
    from torch import Tensor, nn

_TINIT_SHARE, _TFINAL_SHARE = 10, 30
"""Percent of all updates before the first and after the last cut, about as in the paper's tables 8 to 11."""

_STATE, _PATTERN = "rank_allocator.safetensors", "rank_pattern.json"


def adalora(method: AdaLora, subject: AdaptedModel) -> AdaLoraConfig:
    """The schedule is in optimizer updates: `subject.total_steps` of them. Raises RecipeError when it does not fit."""
    total = subject.total_steps
    if total is None:
        raise RecipeError("method adalora needs the number of updates of the training", where=subject.name)
    tinit = total * _TINIT_SHARE // 100 if method.tinit is None else method.tinit
    tfinal = total * _TFINAL_SHARE // 100 if method.tfinal is None else method.tfinal
    if tinit + tfinal >= total:
        raise RecipeError(
            f"method.tinit {tinit} and method.tfinal {tfinal} leave none of the {total} updates to cut ranks",
            where=subject.name,
            remedy="lower them, or train longer (train.epochs, train.max_steps)",
        )
    schedule = {"total_step": total, "tinit": tinit, "tfinal": tfinal}
    config: AdaLoraConfig = by_fields(method, subject, without=["tinit", "tfinal"], **schedule)
    return config


def begin_adalora(adapted: PeftModel, method: AdaLora, subject: AdaptedModel) -> None:
    """Keep the counters of ranks out of training; PEFT does not do so on the meta device."""
    for name, parameter in adapted.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad = False


def is_adalora(model: nn.Module) -> bool:
    """True for a model that trains with AdaLoRA."""
    return hasattr(getattr(model, "base_model", None), "rankallocator")


def after_update(model: nn.Module, step: int) -> None:
    """Cut ranks by the schedule after optimizer update `step` (the first is 1), before gradients are cleared."""
    if is_adalora(model):
        tuner: Any = model.base_model
        tuner.update_and_allocate(step)


def orthogonality(model: nn.Module) -> Tensor | None:
    """The weighted term of the loss that keeps A and B orthogonal; None for every other method.

    The mean over all A (r, in) and B (out, r) of ‖A·Aᵀ − I‖ and ‖Bᵀ·B − I‖. PEFT itself only adds it to a loss that the
    model computes from labels.
    """
    if not is_adalora(model):
        return None
    import torch

    tuner: Any = model.base_model
    distances = []
    for name, matrix in tuner.model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            products = matrix @ matrix.T if "lora_A" in name else matrix.T @ matrix
            identity = torch.eye(len(products), device=products.device, dtype=products.dtype)
            distances.append(torch.linalg.matrix_norm(products - identity))
    weight: float = tuner.peft_config[tuner.trainable_adapter_name].orth_reg_weight
    return weight * torch.stack(distances).mean()


@contextmanager
def whole_ranks(model: nn.Module) -> Iterator[None]:
    """Within this context, PEFT saves the matrices with their cut ranks, which a resumed training needs."""
    config = _config(model) if is_adalora(model) else None
    pattern = None if config is None else config.rank_pattern
    if config is not None:
        config.rank_pattern = None
    try:
        yield
    finally:
        if config is not None:
            config.rank_pattern = pattern


def save_schedule(model: nn.Module, folder: Path) -> None:
    """Write AdaLoRA's gradient statistics and cut ranks into a checkpoint."""
    if not is_adalora(model):
        return
    from safetensors.torch import save_file

    allocator = _allocator(model)
    seen = {
        f"{kind}/{name}": tensor.contiguous()
        for kind in ("exp_avg_ipt", "exp_avg_unc")
        for name, tensor in getattr(allocator, kind).items()
    }
    save_file(seen, folder / _STATE)
    (folder / _PATTERN).write_text(json.dumps(_config(model).rank_pattern), encoding="utf-8")


def restore_schedule(model: nn.Module, folder: Path) -> None:
    """Restore AdaLoRA's schedule from the checkpoint in `folder`."""
    if not is_adalora(model):
        return
    import torch
    from safetensors.torch import load_file

    allocator = _allocator(model)
    allocator.reset_ipt()
    for key, tensor in load_file(folder / _STATE).items():
        kind, name = key.split("/", 1)
        seen = tensor.to(model.get_parameter(f"base_model.model.{name}").device)
        getattr(allocator, kind)[name] = seen
        allocator.ipt.setdefault(name, torch.zeros_like(seen))
    _config(model).rank_pattern = json.loads((folder / _PATTERN).read_text(encoding="utf-8"))


def _allocator(model: nn.Module) -> Any:
    tuner: Any = model.base_model
    return tuner.rankallocator


def _config(model: nn.Module) -> Any:
    tuner: Any = model.base_model
    return tuner.peft_config[tuner.trainable_adapter_name]
