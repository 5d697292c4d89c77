"""IA³: activations rescaled by learned vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.models.methods.adapted_model import AdaptedModel
from edgetune.models.targets import feedforward_among, ia3_targets
from edgetune.recipe.methods import Ia3

if TYPE_CHECKING:
    from peft import IA3Config


def ia3(method: Ia3, subject: AdaptedModel) -> IA3Config:
    """https://arxiv.org/abs/2205.05638."""
    from peft import IA3Config

    if method.targets is None:
        targets, feedforward = ia3_targets(subject.family)
    else:
        targets = list(subject.targets(method.targets))
        feedforward = feedforward_among(targets)
    if method.feedforward is not None:
        feedforward = list(method.feedforward)
        targets += [name for name in feedforward if name not in targets]
        subject.targets(feedforward or None)
    return IA3Config(**subject.common, target_modules=targets, feedforward_modules=feedforward)
