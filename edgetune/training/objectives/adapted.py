"""Properties of a model that objectives need, with or without an adapter on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Batch = TypeVar("Batch", bound=Any)


def base_model(model: nn.Module) -> PreTrainedModel:
    """The Transformers model under the adapter, or the model itself where there is none."""
    adapted = _unwrapped(model)
    base: PreTrainedModel = adapted.get_base_model() if hasattr(adapted, "get_base_model") else adapted
    return base


def has_virtual_tokens(model: nn.Module) -> bool:
    """True for PEFT's prefix, prompt and p-tuning, which put trained vectors before the text."""
    return bool(getattr(_adapter(model), "is_prompt_learning", False))


def has_virtual_embeddings(model: nn.Module) -> bool:
    """True where the virtual tokens are embeddings in front of the text's, not keys and values in every layer."""
    return has_virtual_tokens(model) and _adapter(model).peft_type not in ("PREFIX_TUNING", "CARTRIDGE")


def has_dropout(model: nn.Module) -> bool:
    """True where dropout is on: examples that share hidden states would share their noise too."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())


def on_device_of(model: nn.Module, batch: Batch) -> Batch:
    """The batch with its tensors on the model's device."""
    device = next(model.parameters()).device
    moved: Any = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    return moved


def _unwrapped(model: nn.Module) -> nn.Module:
    """DDP hides the attributes of the model that it wraps."""
    wrapped: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
    return wrapped


def _adapter(model: nn.Module) -> Any:
    return getattr(_unwrapped(model), "active_peft_config", None)
