"""Folds plain LoRA a block of rows at a time, bit-identical to PEFT's whole-model merge, without importing PEFT.

W' = W + s·B·A (https://arxiv.org/abs/2106.09685), s = alpha/r, or alpha/√r for rsLoRA
(https://arxiv.org/abs/2312.03732). Rows of W' need only the same rows of W and B. The order of rounding is that of
merge_and_unload(), in peft.tuners.lora.layer.Linear.merge: B·A in float32, times s, added to W in float32, and the sum
rounded once to W's type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgetune.errors import AdapterError
from edgetune.weights.adapter_file import MODEL_PREFIX, AdapterFile
from edgetune.weights.adapter_keys import ModuleKeys, incomplete, other_base
from edgetune.weights.base import ITEM_BYTES, TensorInfo
from edgetune.weights.source import Adapter
from edgetune.weights.targets import is_targeted, pattern_value, targets_all
from edgetune.weights.torch_arrays import as_array, copy_to_torch

if TYPE_CHECKING:
    import numpy as np

BLOCK_ROWS = 64
"""Rows multiplied at once, always the same ones; the rows that are left over at the end belong to the last block.

Each element of B·A is one chain of additions over the rank, in products of any size except very small ones, for which
BLAS libraries have other code. 64 rows are enough, and fit into the cache; rows of B start on a cache line, as in the
whole matrix.
"""

_A, _B = "lora_A.weight", "lora_B.weight"
_UNDERSTOOD = {
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_dropout"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("modules_to_save", "trainable_token_indices", "ensure_weight_tying"),
    *("megatron_core", "qalora_group_size", "runtime_config"),
}
"""Options that this module supports, or that change no weight. For all others, PEFT's own code folds."""

_DEFAULT_RANK = _DEFAULT_ALPHA = 8
"""PEFT's defaults."""


def is_plain_lora(settings: Mapping[str, Any]) -> bool:
    """True when an adapter_config.json describes plain LoRA."""
    if settings["peft_type"] != "LORA" or settings.get("init_lora_weights", True) not in (True, False, "gaussian"):
        return False
    if settings.get("bias", "none") != "none":
        return False
    return not any(value for key, value in settings.items() if key not in {*_UNDERSTOOD, "init_lora_weights", "bias"})


def lora_scaling(settings: Mapping[str, Any], path: str) -> float:
    """The factor s of the module at `path`."""
    rank = lora_rank(settings, path)
    alpha = pattern_value(settings.get("alpha_pattern"), path, settings.get("lora_alpha", _DEFAULT_ALPHA))
    return float(alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank)


def lora_rank(settings: Mapping[str, Any], path: str) -> int:
    """The rank of the module at `path`."""
    return int(pattern_value(settings.get("rank_pattern"), path, settings.get("r", _DEFAULT_RANK)))


class PlainLora:
    """One linear layer's LoRA: A (rank, columns) and B (rows, rank) in an adapter's file, and the layer's weight.

    Raises AdapterError when a tensor is missing, does not fit rank and base, or is not targeted.
    """

    def __init__(self, adapter: Adapter, file: AdapterFile, module: ModuleKeys, weight: TensorInfo) -> None:
        self._file = file
        self._dtype = weight.dtype
        self._rows = weight.shape[0]
        self._key_a, self._key_b = (f"{MODEL_PREFIX}{module.path}.{part}" for part in (_A, _B))
        if not targets_all(adapter.settings) and not is_targeted(adapter.settings, module.path):
            raise incomplete(adapter, f"has {module.adapter_keys[0]}, which its configuration does not use")
        rank = lora_rank(adapter.settings, module.path)
        if rank < 1:
            raise AdapterError(
                f"the rank of {module.path} is {rank}", where=adapter.folder, remedy="it must be 1 or more"
            )
        for key, needed in ((self._key_a, (rank, weight.shape[1])), (self._key_b, (weight.shape[0], rank))):
            if key not in file.tensors:
                raise incomplete(adapter, f"lacks the tensor {key}")
            shape, dtype = file.tensors[key].shape, file.tensors[key].dtype
            if len(shape) == 2 and rank not in shape and {*shape} & {*needed}:
                raise incomplete(adapter, f"{key} has the shape {list(shape)}, and its configuration has rank {rank}")
            if shape != needed:
                raise other_base(adapter, f"{key} has the shape {list(shape)}, and this base needs {list(needed)}")
            if dtype not in ITEM_BYTES:
                raise incomplete(adapter, f"{key} has the type {dtype}, which LoRA does not have")
        self._scaling = lora_scaling(adapter.settings, module.path)

    @staticmethod
    def suits(module: ModuleKeys, weight: TensorInfo) -> bool:
        """True for a module of a plain LoRA adapter on a linear layer, without anything else in the module."""
        own = {key.removeprefix(f"{MODEL_PREFIX}{module.path}.") for key in module.adapter_keys}
        alone = own <= {_A, _B} and module.rows is None
        return alone and len(weight.shape) == 2 and weight.dtype in ("F32", "F16", "BF16")

    def fold(self, base: np.ndarray, start: int) -> np.ndarray:
        """The folded rows for `base`, the base's rows from `start` on, in the same type."""
        import torch

        folded = copy_to_torch(base, self._dtype)
        stop = start + len(base)
        a = self._factor(self._key_a, 0, self._file.tensors[self._key_a].shape[0])
        first = min(start // BLOCK_ROWS, self._last_block)
        first_row = first * BLOCK_ROWS
        b = self._factor(self._key_b, first_row, self._block_end(min((stop - 1) // BLOCK_ROWS, self._last_block)))
        for block in range(first, self._last_block + 1):
            low, high = block * BLOCK_ROWS, self._block_end(block)
            if low >= stop:
                break
            delta = torch.mm(b[low - first_row : high - first_row], a).mul_(self._scaling)
            wanted = slice(max(low, start), min(high, stop))
            folded[wanted.start - start : wanted.stop - start] += delta[wanted.start - low : wanted.stop - low]
        return as_array(folded)

    @property
    def _last_block(self) -> int:
        return max(self._rows // BLOCK_ROWS - 1, 0)

    def _block_end(self, block: int) -> int:
        return self._rows if block == self._last_block else (block + 1) * BLOCK_ROWS

    def _factor(self, key: str, start: int, stop: int) -> Any:
        """In float32, as PEFT casts what it loads, and in torch's memory: the product depends on the alignment."""
        factor = copy_to_torch(self._file.rows(key, start, stop), self._file.tensors[key].dtype).float()
        self._file.release(key, start, stop)
        return factor
