"""torch.compile for training, layer by layer: a model repeats one layer many times, which is compiled once."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgetune.errors import MissingComponent
from edgetune.training.objectives.adapted import base_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def compile_layers(model: PreTrainedModel) -> None:
    """Compile the model's repeated layers when they first run, for batches of any size.

    Raises MissingComponent where torch.compile needs a C++ compiler (on a CPU) and there is none.
    """
    if not torch.cuda.is_available() and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise MissingComponent(
            "train.compile needs a C++ compiler on a CPU, and none is installed",
            remedy="install one (Debian: apt install g++), or remove train.compile",
        )
    for layer in repeated_layers(base_model(model)):
        layer.compile(dynamic=True)


def repeated_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The repeated layers of the model, which Transformers names for its own sharding."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]
