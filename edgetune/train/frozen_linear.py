"""Quicker float32 matrix products for frozen layers on a CPU, where the machine has them.

PyTorch sends float32 products to MKL, whose kernels run at about half of what AMD processors can do; oneDNN, which
every CPU build of PyTorch carries too, has no such preference. Which of the two is quicker is measured here, in some
milliseconds, on the machine and the shapes at hand. Both compute in float32; only the order of additions differs.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from edgetune.cache import cache_folder
from edgetune.errors import OutputError
from edgetune.outputs import write_text

logger = logging.getLogger(__name__)

WORTH = 1.15
"""How much quicker oneDNN must be to be taken."""


class _OneDnnLinear(torch.autograd.Function):
    """y = x·Wᵀ + b for a W that is not trained: its backward pass gives the gradient of x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _product(gradient, weight.t(), None), None, None


def quicken_frozen_linears(model: nn.Module) -> bool:
    """Let the frozen float32 Linear layers of `model` use oneDNN if that is quicker here; tells whether they do now."""
    layers = [layer for layer in model.modules() if _eligible(layer)]
    if not layers:
        return False
    largest = max(layers, key=lambda layer: layer.weight.numel())
    if not onednn_is_quicker(largest.weight.detach()):
        return False
    for layer in layers:
        layer.forward = _forward_of(layer)
    return True


def onednn_is_quicker(weight: Tensor) -> bool:
    """True where frozen float32 layers with a weight of this shape (out, in) go through oneDNN on this CPU."""
    try:
        return _remembered_gain(weight) >= WORTH
    except (AttributeError, RuntimeError) as problem:
        logger.info("oneDNN cannot be used here: %s", problem)
        return False


def frozen_product(x: Tensor, weight: Tensor) -> Tensor:
    """x·Wᵀ by oneDNN, in float32."""
    return _product(x, weight, None)


def _eligible(layer: nn.Module) -> bool:
    return (
        type(layer) is nn.Linear
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
        and not layer.weight.requires_grad
        and (layer.bias is None or not layer.bias.requires_grad)
    )


def _forward_of(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        if x.dtype != torch.float32 or x.numel() == 0:
            return nn.functional.linear(x, layer.weight, layer.bias)
        product: Tensor = _OneDnnLinear.apply(x, layer.weight, layer.bias)
        return product

    return forward


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _remembered_gain(weight: Tensor) -> float:
    """The gain as it was first measured for this shape on this processor: a resumed run must not choose otherwise.

    Each choice adds in another order, so a run that changes it in between is not bit for bit one that does not.
    """
    what = (platform.processor(), platform.machine(), torch.__version__, torch.get_num_threads(), *weight.shape)
    name = hashlib.sha256(repr((what, torch.backends.cpu.get_cpu_capability())).encode()).hexdigest()[:16]
    record = cache_folder() / "frozen-linear" / name
    try:
        return float(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        gain = _gain(weight)
    with suppress(OSError, OutputError):
        write_text(record, repr(gain), force=True)
    return gain


@torch.no_grad()
def _gain(weight: Tensor, rows: int = 256, rounds: int = 15) -> float:
    """How many times quicker oneDNN multiplies `rows` rows with `weight` (out, in) here; rounds are interleaved."""
    x = torch.randn(rows, weight.shape[1])
    weight = weight[:4096]

    def seconds(work: Callable[[], Tensor]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    pairs = [
        (
            seconds(lambda: nn.functional.linear(x, weight)),
            seconds(lambda: _product(x, weight, None)),
        )
        for _ in range(rounds)
    ]
    # The quickest of each: it is remembered, and another busy program must not decide it.
    default, onednn = (min(side) for side in zip(*pairs[1:], strict=True))
    return default / onednn
