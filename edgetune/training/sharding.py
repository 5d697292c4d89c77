"""One base spread over all devices: each keeps its part of the frozen weights, and gets the others layer by layer.

PyTorch's fully_shard (FSDP2, https://arxiv.org/abs/2304.11277) does it for the repeated layers, nearly all of a model.
What is trained is small, stays whole on every device, and DDP averages its gradients. So optimizer, clipping and
checkpoints are those of an ordinary training, and it goes for NF4 bases too: their packed bytes are spread like any
other weight.
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
    """Spread the frozen weights of `model`, which is in main memory, over the processes; the rest moves to `device`."""
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
    # What is around the layers stays whole. The call makes the layers know of each other: who is next, and who is last.
    fully_shard(base, mesh=mesh, ignored_params=trained | (set(base.parameters()) - inside))
    model.to(device)


def average_gradients(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    """`model` in DDP, which looks at what is trained and not at what is spread."""
    spread = [name for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, spread)
    place = [device] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=place)


def _as_plain_bytes(module: Any, device: torch.device) -> None:
    """bitsandbytes' parameter class is lost when it is spread; its layer finds the constants in the module then."""
    module.quant_state = module.weight.quant_state
    module.quant_state.to(device)
    module.weight = nn.Parameter(module.weight.data, requires_grad=False)
