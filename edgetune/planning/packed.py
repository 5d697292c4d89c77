"""bitsandbytes' quantized weights on the meta device: the shapes and types of a loaded model, without its bytes.

NF4: two weights a byte in blocks of 64, one scale a block; with double quantization the scales are 8-bit numbers in
blocks of 256 with a 32-bit scale each (QLoRA, https://arxiv.org/abs/2305.14314, section 3). int8: one byte a weight and
a 32-bit scale a row (LLM.int8(), https://arxiv.org/abs/2208.07339).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel

_BLOCK, _BLOCK_OF_SCALES = 64, 256


def quantize_on_meta(model: PreTrainedModel, settings: BitsAndBytesConfig) -> None:
    """Replace the linear layers of a meta model as Transformers does with these settings."""
    import bitsandbytes as bnb
    from transformers.quantizers import AutoHfQuantizer

    quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map=None)
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            _pack_nf4(module, settings)
        elif isinstance(module, bnb.nn.Linear8bitLt):
            _pack_int8(module)
    quantizer.postprocess_model(model)


def quantization_constants_bytes(model: nn.Module) -> int:
    """Bytes of the scales of quantized weights, which are not parameters of the model."""
    return sum(_nbytes(tensor) for module in model.modules() for tensor in _constants(module))


def _constants(module: nn.Module) -> list[Tensor]:
    import bitsandbytes as bnb

    if isinstance(module, bnb.nn.Linear4bit):
        state = module.weight.quant_state
        found = [state.absmax, state.code]
        return [*found, state.offset, state.state2.absmax, state.state2.code] if state.nested else found
    if isinstance(module, bnb.nn.Linear8bitLt):
        return [module.state.SCB]
    return []


def _pack_nf4(module: Any, settings: BitsAndBytesConfig) -> None:
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import Params4bit

    shape, weights = module.weight.shape, module.weight.numel()
    blocks = math.ceil(weights / _BLOCK)
    double = settings.bnb_4bit_use_double_quant
    state = QuantState(
        absmax=_meta(blocks, torch.uint8 if double else torch.float32),
        shape=shape,
        code=_meta(16, torch.float32),
        blocksize=_BLOCK,
        quant_type=settings.bnb_4bit_quant_type,
        dtype=module.weight.dtype,
        offset=_meta((), torch.float32) if double else None,
        state2=QuantState(
            absmax=_meta(math.ceil(blocks / _BLOCK_OF_SCALES), torch.float32),
            code=_meta(256, torch.float32),
            blocksize=_BLOCK_OF_SCALES,
            dtype=torch.float32,
        )
        if double
        else None,
    )
    module.weight = Params4bit(
        torch.empty((math.ceil(weights / 2), 1), dtype=torch.uint8, device="meta"),
        requires_grad=False,
        quant_state=state,
        compress_statistics=double,
        quant_type=settings.bnb_4bit_quant_type,
        module=module,
        bnb_quantized=True,
    )
    module.quant_state = state


def _pack_int8(module: Any) -> None:
    from bitsandbytes.nn import Int8Params

    rows = module.weight.shape[0]
    packed = torch.empty(module.weight.shape, dtype=torch.int8, device="meta")
    module.weight = Int8Params(packed, requires_grad=False, has_fp16_weights=False)
    module.state.CB, module.state.SCB = packed, _meta(rows, torch.float32)


def _meta(shape: Any, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
