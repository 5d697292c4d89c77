"""Shards the frozen base over all devices: each keeps a part of the weights and gathers the others layer by layer.

PyTorch's fully_shard (FSDP2, https://arxiv.org/abs/2304.11277) shards the repeated layers, nearly all of a model. The
trained weights are small and stay whole on every device; DDP averages their gradients. Optimizer, clipping and
checkpoints are therefore those of an ordinary training. The packed bytes of NF4 bases are sharded like other weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from edgetune.training.compilation import repeated_layers
from edgetune.training.objectives.adapted import base_model

if TYPE_CHECKING:
    from peft import PeftModel


def shard_frozen_layers(model: PeftModel, device: torch.device) -> None:
    """Shard the frozen weights of `model`, which is in main memory, over the processes; move the rest to `device`."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            _as_plain_bytes(module, device)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    base = base_model(model)
    layers = repeated_layers(base)
    inside = {parameter for layer in layers for parameter in layer.parameters()}
    trained = {parameter for parameter in inside if parameter.requires_grad}
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=trained)
    # The rest of the base stays whole. This call tells the layers their order.
    fully_shard(base, mesh=mesh, ignored_params=trained | (set(base.parameters()) - inside))
    model.to(device)


def average_gradients(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    """`model` in DDP, which ignores the sharded weights."""
    spread = [name for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, spread)
    place = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=place)


def _as_plain_bytes(module: Any, device: torch.device) -> None:
    """Sharding loses bitsandbytes' parameter class, so its layer must find the constants in the module."""
    module.quant_state = module.weight.quant_state
    module.quant_state.to(device)
    module.weight = nn.Parameter(module.weight.data, requires_grad=False)
