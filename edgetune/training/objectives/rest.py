"""An evaluation in the middle of a training: afterwards the training goes on as if there had been none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """While this is open, `model` is in evaluation mode and makes no gradients.

    Afterwards each of its modules is in the mode that it was in, and torch's random numbers go on where they were.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
