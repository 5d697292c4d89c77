"""Chooses the fastest matrix products for frozen layers on a CPU.

PyTorch uses MKL for float32 products, whose kernels reach about half of what AMD processors can do; oneDNN, which is in
every CPU build of PyTorch, is faster there. Both compute in float32; only the order of additions differs. Processors
with AMX or AVX512-BF16 multiply in bfloat16 many times faster. There the weights of frozen layers are kept in bfloat16,
in half the memory; adapters, norms, the output layer and the loss stay in float32.

The fastest of the three is measured in some milliseconds, on this machine and with the model's shapes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgetune.cache import cache_folder
from edgetune.errors import OutputError, RecipeError
from edgetune.outputs import write_text
from edgetune.recipe.schema import Recipe, why_not_in_bfloat16
from edgetune.training import processes
from edgetune.training.frozen_layers import Products, bfloat16_layers, frozen_layers
from edgetune.training.products import HAS_BFLOAT16, bfloat16_product, onednn_product

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

WORTH = 1.15
"""A product must be faster by this factor to be chosen."""

MEASURED_ROWS = 256

Product = Callable[[Tensor, Tensor], Tensor]
"""x (n, in) and W (out, in) -> x·Wᵀ (n, out)."""


def agree_on_products(model: PeftModel | PreTrainedModel, recipe: Recipe, record: Path, *, resumed: bool) -> Products:
    """The products that all processes use: the fastest in the first process; in a `resumed` run, those in `record`."""
    products = None
    if processes.is_first():
        if resumed and record.is_file():
            products = Products(**json.loads(record.read_text(encoding="utf-8")))
        else:
            products = choose_products(model, recipe)
            write_text(record, json.dumps(asdict(products)) + "\n", force=True)
    return processes.from_first(products)


def choose_products(model: PeftModel | PreTrainedModel, recipe: Recipe) -> Products:
    """The fastest products for the frozen layers of `model` on this CPU that `recipe` allows."""
    layers = frozen_layers(model)
    if not layers:
        return Products()
    return Products(onednn_is_quicker(_largest(layers)), takes_bfloat16(model, recipe))


def takes_bfloat16(model: PeftModel | PreTrainedModel, recipe: Recipe) -> bool:
    """True where frozen layers multiply in bfloat16: the recipe asks for it, or allows it and it is faster.

    The model may be on the meta device.
    """
    wanted = recipe.train.frozen_products
    layers = bfloat16_layers(model)
    if wanted != "auto" or not layers:
        return wanted == "bfloat16" and bool(layers)
    # An explicit float32 is kept; only auto leaves the type to the machine.
    allowed = recipe.base.dtype == "auto" and why_not_in_bfloat16(recipe) is None
    return allowed and bfloat16_is_quicker(_largest(layers))


def check_products(model: PeftModel | PreTrainedModel, recipe: Recipe, *, on_gpu: bool) -> None:
    """Raise RecipeError where the recipe asks for bfloat16 products that are impossible with `model`."""
    if recipe.train.frozen_products != "bfloat16":
        return
    where = "train.frozen_products"
    if on_gpu:
        raise RecipeError(
            "bfloat16 products in a float32 model are for CPUs, and this training runs on a GPU",
            where=where,
            remedy="remove it, or set base.dtype to bfloat16",
        )
    if not bfloat16_layers(model):
        raise RecipeError(
            "the base has no frozen linear layer that can multiply in bfloat16", where=where, remedy="remove it"
        )


def onednn_is_quicker(weight: Tensor) -> bool:
    """True where oneDNN is faster on this CPU for float32 weights of this shape (out, in)."""
    try:
        return _remembered_gain(weight) >= WORTH
    except (AttributeError, RuntimeError) as problem:
        logger.info("oneDNN cannot be used here: %s", problem)
        return False


def bfloat16_is_quicker(weight: Tensor) -> bool:
    """True where bfloat16 is faster on this CPU for weights of this shape (out, in)."""
    return HAS_BFLOAT16 and _remembered_bfloat16_gain(weight) >= WORTH


def _largest(layers: Sequence[nn.Linear]) -> Tensor:
    return max(layers, key=lambda layer: layer.weight.numel()).weight.detach()


def _remembered_gain(weight: Tensor) -> float:
    """The speed-up by oneDNN, as first measured for this shape on this processor."""
    return remembered("frozen-linear", _processor(weight), lambda: _gain(_real(weight)))


def _remembered_bfloat16_gain(weight: Tensor) -> float:
    """The speed-up by bfloat16 over the faster float32 product."""
    features = tuple(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))
    float32 = onednn_product if onednn_is_quicker(weight) else nn.functional.linear
    what = (*_processor(weight), *features)
    return remembered("frozen-linear-bfloat16", what, lambda: _bfloat16_gain(_real(weight), float32))


def _processor(weight: Tensor) -> tuple[object, ...]:
    what = (platform.processor(), platform.machine(), torch.__version__, torch.get_num_threads(), *weight.shape)
    return what, torch.backends.cpu.get_cpu_capability()


def remembered(folder: str, what: tuple[object, ...], measure: Callable[[], float]) -> float:
    """The number that was first measured for `what`, kept in the cache's `folder`.

    Runs that are compared must not choose differently: each choice adds in another order, so a run that changes it in
    between is not bit for bit one that does not.
    """
    record = cache_folder() / folder / hashlib.sha256(repr(what).encode()).hexdigest()[:16]
    try:
        return float(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        gain = measure()
    with suppress(OSError, OutputError):
        write_text(record, repr(gain), force=True)
    return gain


def _real(weight: Tensor) -> Tensor:
    """The rows that are measured; random values for a weight on the meta device."""
    rows = weight[:4096]
    return torch.randn(rows.shape) if rows.is_meta else rows


@torch.no_grad()
def _gain(weight: Tensor) -> float:
    """The speed-up by oneDNN for `weight` (out, in)."""
    x = torch.randn(MEASURED_ROWS, weight.shape[1])
    default, onednn = _quickest(
        lambda: nn.functional.linear(x, weight),
        lambda: onednn_product(x, weight),
    )
    return default / onednn


@torch.no_grad()
def _bfloat16_gain(weight: Tensor, float32: Product) -> float:
    """The speed-up by bfloat16 over `float32`, forward and backward, with the rounding of a step."""
    x, gradient = torch.randn(MEASURED_ROWS, weight.shape[1]), torch.randn(MEASURED_ROWS, weight.shape[0])
    narrow = weight.to(torch.bfloat16)
    wide_seconds, narrow_seconds = _quickest(
        lambda: (float32(x, weight), float32(gradient, weight.t())),
        lambda: (bfloat16_product(x, narrow), bfloat16_product(gradient, narrow.t())),
    )
    return wide_seconds / narrow_seconds


def _quickest(*ways: Callable[[], object], rounds: int = 15) -> list[float]:
    """Seconds of each way's fastest round; rounds are interleaved.

    The fastest, because the result is kept, and other busy programs must not affect it.
    """

    def seconds(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    taken = [[seconds(way) for way in ways] for _ in range(rounds)]
    return [min(times) for times in zip(*taken[1:], strict=True)]
