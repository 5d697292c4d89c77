"""Methods that change each weight by an update of few parameters: LoHa, LoKr, HiRA, SHiRA, OFT and VeRA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.models.methods.adapted_model import AdaptedModel
from edgetune.models.targets import Targets
from edgetune.recipe.methods import HiRA, LoHa, LoKr, Oft, SHiRA, Vera

if TYPE_CHECKING:
    from peft import HiraConfig, LoHaConfig, LoKrConfig, OFTConfig, ShiraConfig, VeraConfig
    from torch import Tensor, nn


def loha(method: LoHa, subject: AdaptedModel) -> LoHaConfig:
    """https://arxiv.org/abs/2108.06098: (B₁·A₁) ∘ (B₂·A₂)."""
    from peft import LoHaConfig

    return LoHaConfig(
        **subject.common,
        r=method.rank,
        alpha=method.alpha,
        rank_dropout=method.rank_dropout,
        module_dropout=method.module_dropout,
        target_modules=subject.targets(method.targets),
    )


def lokr(method: LoKr, subject: AdaptedModel) -> LoKrConfig:
    """https://arxiv.org/abs/2309.14859: a Kronecker product, the larger factor of it low in rank."""
    from peft import LoKrConfig

    return LoKrConfig(
        **subject.common,
        r=method.rank,
        alpha=method.alpha,
        rank_dropout=method.rank_dropout,
        module_dropout=method.module_dropout,
        decompose_both=method.decompose_both,
        decompose_factor=method.decompose_factor,
        target_modules=subject.targets(method.targets),
    )


def hira(method: HiRA, subject: AdaptedModel) -> HiraConfig:
    """https://openreview.net/forum?id=TwJrTz9cRS: W ∘ (B·A)."""
    from peft import HiraConfig

    return HiraConfig(
        **subject.common,
        r=method.rank,
        hira_dropout=method.dropout,
        target_modules=subject.targets(method.targets),
    )


def shira(method: SHiRA, subject: AdaptedModel) -> ShiraConfig:
    """https://arxiv.org/abs/2406.13175: r·(in + out) single weights of each module, drawn at random."""
    from peft import ShiraConfig

    config = ShiraConfig(
        **subject.common,
        r=method.rank,
        random_seed=method.mask_seed,
        target_modules=subject.targets(method.targets),
    )
    if not subject.is_real:
        config.mask_fn = _any_mask
    return config


def oft(method: Oft, subject: AdaptedModel) -> OFTConfig:
    """https://arxiv.org/abs/2306.07280: inputs turned by orthogonal blocks.

    Raises RecipeError for a size that does not split every module's inputs evenly, which PEFT would change by itself.
    """
    from peft import OFTConfig

    targets = subject.targets(method.targets)
    _check_blocks(method.block_size, targets, subject)
    return OFTConfig(
        **subject.common,
        oft_block_size=method.block_size,
        module_dropout=method.dropout,
        coft=method.coft,
        block_share=method.block_share,
        target_modules=targets,
    )


def vera(method: Vera, subject: AdaptedModel) -> VeraConfig:
    """https://arxiv.org/abs/2310.11454."""
    from peft import VeraConfig

    return VeraConfig(
        **subject.common,
        r=method.rank,
        vera_dropout=method.dropout,
        d_initial=method.d_initial,
        projection_prng_key=method.projection_seed,
        target_modules=subject.targets(method.targets),
    )


def _any_mask(layer: nn.Linear, rank: int, **_: Any) -> Tensor:
    """As many weights as SHiRA trains, the first ones: PEFT counts a mask, which a tensor without values cannot say."""
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
