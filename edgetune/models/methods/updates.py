"""SHiRA and OFT, which need more than the fields of their sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.models.methods.adapted_model import AdaptedModel
from edgetune.models.methods.fields import by_fields
from edgetune.models.targets import Targets
from edgetune.recipe.methods import Oft, SHiRA

if TYPE_CHECKING:
    from peft import OFTConfig, ShiraConfig
    from torch import Tensor, nn


def shira(method: SHiRA, subject: AdaptedModel) -> ShiraConfig:
    """r·(in + out) weights of each module, drawn at random."""
    config = by_fields(method, subject)
    if not subject.is_real:
        config.mask_fn = _any_mask
    return config


def oft(method: Oft, subject: AdaptedModel) -> OFTConfig:
    """Raises RecipeError for a block size that does not divide each module's inputs; PEFT would change it."""
    _check_blocks(method.block_size, subject.targets(method.targets), subject)
    return by_fields(method, subject)


def _any_mask(layer: nn.Linear, rank: int, **_: Any) -> Tensor:
    """The first weights, as many as SHiRA trains: PEFT counts the mask, and a tensor without values has no count."""
    import torch

    outputs, inputs = layer.out_features, layer.in_features
    mask = torch.zeros(outputs * inputs, dtype=torch.bool, device="cpu")
    mask[: rank * (outputs + inputs)] = True
    return mask.view(outputs, inputs)


def _check_blocks(block_size: int, targets: Targets, subject: AdaptedModel) -> None:
    from torch import nn

    for path, module in subject.model.named_modules():
        named = targets == "all-linear" or any(path == name or path.endswith(f".{name}") for name in targets)
        skipped = path.split(".")[0] in subject.head or module is subject.model.get_output_embeddings()
        if isinstance(module, nn.Linear) and named and not skipped and module.in_features % block_size:
            sizes = [size for size in range(2, block_size) if module.in_features % size == 0]
            raise subject.cannot(
                f"method.block_size {block_size} does not divide the {module.in_features} inputs of {path}",
                f"take {sizes[-1]}" if sizes else None,
            )
