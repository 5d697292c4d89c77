"""Base ⊕ adapter for one module: decides how each tensor of the base is changed, and changes its rows.

Plain LoRA is folded by rows (lora.py), trained tensors and token rows take the base's place, and everything else goes
through PEFT's own layer code, a whole module at a time (peft_module.py).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgetune.errors import AdapterError
from edgetune.models.safetensors_file import SafetensorsFile
from edgetune.weights.adapter_keys import AdapterKeys, ModuleKeys, assign_keys, incomplete, other_base
from edgetune.weights.base import ITEM_BYTES, BaseTensors
from edgetune.weights.lora import PlainLora, is_plain_lora
from edgetune.weights.peft_module import PeftFolder, load_peft_config
from edgetune.weights.source import Adapter
from edgetune.weights.torch_arrays import as_array, copy_to_torch, torch_dtype
from edgetune.weights.whole_tensors import WholeTensors

if TYPE_CHECKING:
    import numpy as np


_WHOLE_COPIES = 4
"""Of a module that PEFT folds: its weight, the float32 difference, their sum, and the one that is still being read."""

_TOGETHER = ("FROD", "TINYLORA", "UNILORA")
"""PEFT's methods whose tensors belong to no single module."""


class AdapterFolder:
    """An opened adapter, able to change the base's tensors. Threads may ask at the same time.

    Raises AdapterError when the method cannot be merged, when the adapter names modules that the base does not have or
    lacks tensors for modules that its configuration targets, and when shapes do not fit.
    """

    def __init__(self, adapter: Adapter, base: BaseTensors) -> None:
        self.adapter = adapter
        self._base = base
        refuse_unmergeable(adapter)
        self._file = SafetensorsFile(adapter.weights)
        self._keys: AdapterKeys = assign_keys(adapter, self._file.tensors, base.tensors)
        self._plain = self._plain_modules()
        self._peft: PeftFolder | None = None
        self._whole = WholeTensors(self._fold_module)

    @property
    def modules(self) -> dict[str, ModuleKeys]:
        """The modules that the adapter changes, by path."""
        return self._keys.modules

    @property
    def working_bytes(self) -> int:
        """Memory that the largest module takes which is folded whole."""
        whole = [path for path, module in self.modules.items() if module.adapter_keys and path not in self._plain]
        largest = max((math.prod(self._base.tensors[f"{path}.weight"].shape) for path in whole), default=0)
        return _WHOLE_COPIES * ITEM_BYTES["F32"] * largest

    def touches(self, name: str) -> bool:
        """True when the adapter changes this tensor."""
        path, _, parameter = name.rpartition(".")
        module = self.modules.get(path)
        if module is None:
            return False
        if parameter in module.replacements or (parameter == "weight" and module.row_key is not None):
            return True
        return parameter == "weight" if path in self._plain else bool(module.adapter_keys)

    def replacement_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of the tensor that takes the place of base tensor `name`; None when none does."""
        key = self._replacement_key(name)
        return None if key is None else self._file.tensors[key].shape

    def same_replacement(self, one: str, other: str) -> bool:
        """True when tensors of the same values take the places of two base tensors."""
        import numpy as np

        keys = self._replacement_key(one), self._replacement_key(other)
        if keys[0] is None or keys[1] is None:
            return False
        return bool(np.array_equal(self._file.rows(keys[0]), self._file.rows(keys[1])))

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a tensor that the adapter touches, in the base's type.

        Raises AdapterError when PEFT cannot fold the module, NumericalError when it finds a value that is not finite.
        """
        path, _, parameter = name.rpartition(".")
        module = self.modules[path]
        if path in self._plain:
            folded = self._plain[path].fold(self._base.rows(name, start, stop), start)
            self._base.release(name, start, stop)
            return folded
        if module.adapter_keys:
            return self._whole.rows(name, start, stop)
        if parameter in module.replacements:
            return self._replaced(name, start, stop)
        return self._with_new_rows(module, self._base.rows(name, start, stop), start)

    def release(self, name: str, start: int, stop: int) -> None:
        """Let go of what these rows hold in memory."""
        self._whole.release(name, start, stop)
        key = self._replacement_key(name)
        if key is not None:
            self._file.release(key, start, stop)

    def _plain_modules(self) -> dict[str, PlainLora]:
        if not is_plain_lora(self.adapter.settings):
            return {}
        plain = {}
        for path, module in self.modules.items():
            weight = self._base.tensors[f"{path}.weight"]
            if module.adapter_keys and PlainLora.suits(module, weight):
                plain[path] = PlainLora(self.adapter, self._file, module, weight)
        return plain

    def _replacement_key(self, name: str) -> str | None:
        path, _, parameter = name.rpartition(".")
        module = self.modules.get(path)
        return None if module is None else module.replacements.get(parameter)

    def _replaced(self, name: str, start: int, stop: int) -> np.ndarray:
        key = self._replacement_key(name)
        assert key is not None
        dtype, wanted = self._file.tensors[key].dtype, self._base.tensors[name].dtype
        if dtype not in ITEM_BYTES:
            raise incomplete(self.adapter, f"{key} has the type {dtype}, which is none of a weight's")
        rows = self._file.rows(key, start, stop)
        return rows if dtype == wanted else as_array(copy_to_torch(rows, dtype).to(torch_dtype(wanted)))

    def _with_new_rows(self, module: ModuleKeys, base: np.ndarray, start: int) -> np.ndarray:
        """`base`, rows of the embedding from `start` on, with the trained rows among them."""
        key = module.row_key
        assert key is not None
        trained = self._file.tensors[key]
        indices = self.adapter.settings["trainable_token_indices"]
        if isinstance(indices, dict):
            indices = next(value for name, value in indices.items() if module.path.endswith(name))
        weight = self._base.tensors[f"{module.path}.weight"]
        if trained.shape != (len(indices), weight.shape[1]) or max(indices, default=0) >= weight.shape[0]:
            raise other_base(
                self.adapter,
                f"{key} has rows for {len(indices)} tokens up to {max(indices, default=0)} and the shape "
                f"{list(trained.shape)}, the embedding is {list(weight.shape)}",
            )
        new = as_array(copy_to_torch(self._file.rows(key), trained.dtype).to(torch_dtype(weight.dtype)))
        rows = base.copy()
        for place, index in enumerate(indices):
            if start <= index < start + len(rows):
                rows[index - start] = new[place]
        return rows

    def _fold_module(self, name: str) -> dict[str, np.ndarray]:
        """All parameters of the module that `name` belongs to."""
        module = self.modules[name.rpartition(".")[0]]
        parameters = {}
        for parameter in ("weight", "bias"):
            whole = f"{module.path}.{parameter}"
            if whole not in self._base.tensors:
                continue
            info = self._base.tensors[whole]
            rows = info.shape[0]
            if parameter in module.replacements:
                array = self._replaced(whole, 0, rows)
            else:
                array = self._base.rows(whole, 0, rows)
                if parameter == "weight" and module.row_key is not None:
                    array = self._with_new_rows(module, array, 0)
            parameters[parameter] = copy_to_torch(array, info.dtype)
            self._base.release(whole, 0, rows)
        if self._peft is None:
            linear = {n.rpartition(".")[0]: info for n, info in self._base.tensors.items() if n.endswith(".weight")}
            self._peft = PeftFolder(self.adapter, self._keys, linear)
        folded = self._peft.fold(module, parameters)
        return {f"{module.path}.{parameter}": as_array(tensor) for parameter, tensor in folded.items()}


def refuse_unmergeable(adapter: Adapter) -> None:
    """Raise AdapterError, with a way out, for an adapter of a method that cannot be folded into weights."""
    kind = str(adapter.settings["peft_type"]).removeprefix("PeftType.")
    prompts = kind != "LORA" and load_peft_config(adapter).is_prompt_learning
    if prompts or kind in ("ADAPTION_PROMPT", "XLORA", "POLY", "LILY"):
        raise AdapterError(
            f"{kind} adds to the input or the computation instead of changing weights, so it cannot be folded in",
            where=adapter.folder,
            remedy="use the adapter with PEFT, or train one with method lora or ia3",
        )
    if kind in _TOGETHER:
        raise AdapterError(
            f"{kind} computes the updates of all modules together, and edgetune folds one module at a time",
            where=adapter.folder,
            remedy="merge it with PEFT's merge_and_unload and give the merged model",
        )
    for option in ("layer_replication", "target_parameters", "megatron_config"):
        if adapter.settings.get(option):
            raise AdapterError(
                f"{option} is set, and edgetune cannot fold such an adapter",
                where=adapter.folder,
                remedy="merge it with PEFT's merge_and_unload and give the merged model",
            )
