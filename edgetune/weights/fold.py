"""Folds an adapter into the base: decides how each tensor changes, and changes its rows.

Tensors and rows that the adapter has itself replace the base's first (replaced_base.py). Then plain LoRA is folded by
rows (lora.py), and PEFT's own layer code does everything else, a whole module at a time (peft_module.py).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

from edgetune.errors import AdapterError
from edgetune.models.families import EmbeddingNames
from edgetune.weights.adapter_file import MODEL_PREFIX, AdapterFile
from edgetune.weights.adapter_keys import AdapterKeys, ModuleKeys, assign_keys
from edgetune.weights.base import ITEM_BYTES, BaseTensors, TensorInfo
from edgetune.weights.lora import PlainLora, is_plain_lora
from edgetune.weights.peft_module import PeftFolder, load_peft_config
from edgetune.weights.replaced_base import ReplacedBase
from edgetune.weights.source import Adapter
from edgetune.weights.torch_arrays import as_array, copy_to_torch
from edgetune.weights.tying import settle_tied
from edgetune.weights.whole_tensors import WholeTensors

if TYPE_CHECKING:
    import numpy as np


_WHOLE_COPIES = 4
"""Copies in memory of a module that PEFT folds: weight, float32 difference, sum, and the one that is being read."""

INVOCATION_TOKENS = "alora_invocation_tokens"
"""The setting of an activated LoRA, which only changes what follows these tokens."""

_LORA_BIAS = ".lora_B.bias"

_TOGETHER = ("FROD", "TINYLORA", "UNILORA")
"""PEFT's methods whose tensors belong to several modules."""


class AdapterFolder:
    """The base's tensors with the adapter in them. Several threads may read at once.

    `vocabulary` names the base's embedding and output layer; with `tied` they are one weight, which `base` has under
    both names. Raises AdapterError when the method cannot be merged, when the adapter names modules that the base
    lacks or lacks tensors for modules that its configuration targets, and when shapes do not fit.
    """

    def __init__(
        self, adapter: Adapter, base: BaseTensors, *, vocabulary: EmbeddingNames | None = None, tied: bool = False
    ) -> None:
        self.adapter = adapter
        refuse_unmergeable(adapter)
        self._file = AdapterFile(adapter, base.tensors)
        self._keys: AdapterKeys = assign_keys(adapter, self._file.tensors, base.tensors)
        refuse_biases_without_place(adapter, self._file, base.tensors)
        self.keeps_tied = tied and vocabulary is not None and settle_tied(adapter, self._file, self._keys, vocabulary)
        resizable = () if vocabulary is None else (vocabulary.embedding, vocabulary.head)
        self._base = ReplacedBase(adapter, self._file, base, self.modules, resizable)
        self._plain = self._plain_modules()
        self._peft: PeftFolder | None = None
        self._whole = WholeTensors(self._fold_module)

    @property
    def modules(self) -> dict[str, ModuleKeys]:
        """The modules that the adapter changes, by path."""
        return self._keys.modules

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """The tensors, with the shapes that they have after folding."""
        return self._base.tensors

    @property
    def working_bytes(self) -> int:
        """The memory that the largest module takes of those that are folded whole."""
        whole = [path for path, module in self.modules.items() if module.adapter_keys and path not in self._plain]
        largest = max((math.prod(self.tensors[f"{path}.weight"].shape) for path in whole), default=0)
        return _WHOLE_COPIES * ITEM_BYTES["F32"] * largest

    @property
    def changes_nothing(self) -> bool:
        """True for untrained LoRA: A or B is zero in every module."""
        return all(_is_zero_lora(self._file, module) for module in self.modules.values())

    def touches(self, name: str) -> bool:
        """True when the adapter changes this tensor."""
        path, _, parameter = name.rpartition(".")
        if self._base.differs(name):
            return True
        module = self.modules.get(path)
        if module is None:
            return False
        return parameter == "weight" if path in self._plain else bool(module.adapter_keys)

    def replaces(self, name: str) -> bool:
        """True when the adapter has the whole tensor, or its initial values."""
        return self._base.replaces(name)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a tensor that the adapter touches, in the base's type.

        Raises AdapterError when PEFT cannot fold the module. The caller checks that the values are finite.
        """
        path, _, parameter = name.rpartition(".")
        module = self.modules.get(path)
        if module is not None and module.adapter_keys and path not in self._plain:
            return self._whole.rows(name, start, stop)
        rows = self._base.rows(name, start, stop)
        if parameter == "weight" and path in self._plain:
            return self._plain[path].fold(rows, start)
        return rows

    def release(self, name: str, start: int, stop: int) -> None:
        """Release the memory of these rows."""
        self._whole.release(name, start, stop)
        self._base.release(name, start, stop)

    def _plain_modules(self) -> dict[str, PlainLora]:
        if not is_plain_lora(self.adapter.settings):
            return {}
        plain = {}
        for path, module in self.modules.items():
            weight = self.tensors[f"{path}.weight"]
            if module.adapter_keys and PlainLora.suits(module, weight):
                plain[path] = PlainLora(self.adapter, self._file, module, weight)
        return plain

    def _fold_module(self, name: str) -> dict[str, np.ndarray]:
        """All parameters of the module of `name`."""
        module = self.modules[name.rpartition(".")[0]]
        parameters = {}
        for parameter in ("weight", "bias"):
            whole = f"{module.path}.{parameter}"
            if whole not in self.tensors:
                continue
            info = self.tensors[whole]
            parameters[parameter] = copy_to_torch(self._base.rows(whole, 0, info.shape[0]), info.dtype)
            self._base.release(whole, 0, info.shape[0])
        if self._peft is None:
            linear = {n.rpartition(".")[0]: info for n, info in self.tensors.items() if n.endswith(".weight")}
            self._peft = PeftFolder(self.adapter, self._file, self._keys, linear)
        folded = self._peft.fold(module, parameters)
        return {f"{module.path}.{parameter}": as_array(tensor) for parameter, tensor in folded.items()}


def _is_zero_lora(file: AdapterFile, module: ModuleKeys) -> bool:
    if module.replacements or module.rows or not module.adapter_keys:
        return False
    kinds = {key.removeprefix(f"{MODEL_PREFIX}{module.path}.") for key in module.adapter_keys}
    if kinds not in ({"lora_A.weight", "lora_B.weight"}, {"lora_embedding_A", "lora_embedding_B"}):
        return False
    return any(file.is_zero(key) for key in reversed(module.adapter_keys))


def needs_whole_model(adapter: Adapter) -> bool:
    """True for an adapter that PEFT can only merge in the whole model."""
    kind = str(adapter.settings["peft_type"]).removeprefix("PeftType.")
    return kind in _TOGETHER or bool(adapter.settings.get("target_parameters"))


def refuse_unmergeable(adapter: Adapter) -> None:
    """Raise AdapterError for an adapter that cannot be folded into weights."""
    kind = str(adapter.settings["peft_type"]).removeprefix("PeftType.")
    prompts = kind != "LORA" and load_peft_config(adapter).is_prompt_learning
    if prompts or kind in ("ADAPTION_PROMPT", "XLORA", "POLY", "LILY"):
        raise AdapterError(
            f"{kind} adds to the input or the computation instead of changing weights, so it cannot be folded in",
            where=adapter.folder,
            remedy="use the adapter with PEFT, or train one with method lora or ia3",
        )
    if adapter.settings.get(INVOCATION_TOKENS):
        raise AdapterError(
            "is an aLoRA, which changes only what follows its invocation tokens, so it cannot be folded in",
            where=adapter.folder,
            remedy="write it alone with `edgetune export --adapter-only`: llama.cpp supports such adapters",
        )
    if needs_whole_model(adapter):
        raise AdapterError(
            f"{kind} computes the updates of all modules together, and this command folds one module at a time",
            where=adapter.folder,
            remedy="merge it with PEFT's merge_and_unload and give the merged model",
        )
    for option in ("layer_replication", "megatron_config"):
        if adapter.settings.get(option):
            raise AdapterError(
                f"{option} is set, and edgetune cannot fold such an adapter",
                where=adapter.folder,
                remedy="merge it with PEFT's merge_and_unload and give the merged model",
            )


def refuse_biases_without_place(adapter: Adapter, file: AdapterFile, base: Collection[str]) -> None:
    """Raise AdapterError for LoRA with biases (lora_bias) on a layer without a bias. `base`: names of tensors."""
    for key in file.tensors:
        path = key.removeprefix(MODEL_PREFIX).removesuffix(_LORA_BIAS)
        if key.endswith(_LORA_BIAS) and f"{path}.weight" in base and f"{path}.bias" not in base:
            raise AdapterError(
                f"was trained with lora_bias, and {path} of its base has no bias to add to",
                where=adapter.folder,
                remedy="use the adapter with PEFT as it is, or train again without lora_bias",
            )
