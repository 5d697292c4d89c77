"""Folds an adapter of any method into one module with PEFT's own layer code.

The module is alone in a skeleton, under its dotted path. PEFT applies the adapter's configuration there (target rules,
rank and alpha patterns) as in the whole model, and the weights are the same.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgetune.errors import AdapterError
from edgetune.models.load import quiet_libraries
from edgetune.weights.adapter_file import MODEL_PREFIX, AdapterFile
from edgetune.weights.adapter_keys import (
    AdapterKeys,
    ModuleKeys,
    incomplete,
    other_base,
    targeted_modules,
)
from edgetune.weights.base import TensorInfo
from edgetune.weights.source import Adapter

if TYPE_CHECKING:
    import torch

_EMBEDDINGS = ("embed_tokens", "embed_positions", "wte", "wpe", "word_embeddings", "embedding", "shared")


class PeftFolder:
    """An adapter with PEFT's configuration. `linear`: the base's weights by module path.

    Raises AdapterError when PEFT does not understand the configuration.
    """

    def __init__(
        self, adapter: Adapter, file: AdapterFile, keys: AdapterKeys, linear: Mapping[str, TensorInfo]
    ) -> None:
        from safetensors import safe_open

        self._adapter = adapter
        self._file = file
        self._config = load_peft_config(adapter)
        self._shared = keys.shared
        self._tensors = safe_open(adapter.weights, framework="pt")
        self._widest = self._widest_modules(keys, linear)

    def fold(self, module: ModuleKeys, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The folded parameters of one module, in the types of `parameters` ("weight", perhaps "bias").

        The arithmetic is that of merge_and_unload() without safe_merge, which checks for finite values and rounds more
        often. Raises AdapterError when shapes do not fit.
        """
        import torch
        from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

        config = self._config_for(module)
        dtypes = {parameter: tensor.dtype for parameter, tensor in parameters.items()}
        skeleton = torch.nn.Module()
        _attach(skeleton, module.path, _layer(module, parameters, config, self._adapter))
        for path, (rows, columns) in self._widest.items():
            if path != module.path:
                stand_in = torch.nn.Linear(columns, rows, bias=False, dtype=parameters["weight"].dtype)
                _attach(skeleton, path, stand_in)
        keys = (*module.adapter_keys, *self._shared)
        tensors = {key: self._tensors.get_tensor(self._file.name_in_file(key)) for key in keys}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model = get_peft_model(skeleton, config)
                result = set_peft_model_state_dict(model, tensors)
                _widen(model)
            except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, NotImplementedError) as problem:
                raise self._does_not_fit(module, problem) from problem
            needed = get_peft_model_state_dict(model, save_embedding_layers=False)
            own = f"{MODEL_PREFIX}{module.path}."
            lost = [key for key in needed if key.startswith(own) and "base_layer" not in key and key not in tensors]
            if lost or result.unexpected_keys:
                key = (lost or result.unexpected_keys)[0].replace(".default", "")
                what = f"lacks the tensor {key}" if lost else f"holds {key}, which its configuration does not use"
                raise incomplete(self._adapter, what)
            try:
                whole = model.merge_and_unload()
            except (ValueError, NotImplementedError, AttributeError, RuntimeError) as problem:
                raise self._does_not_fit(module, problem) from problem
        layer = whole.get_submodule(module.path)
        # Some methods (C3A, DEFT) leave the sum in the adapter's type.
        return {parameter: getattr(layer, parameter).data.to(dtype) for parameter, dtype in dtypes.items()}

    def _config_for(self, module: ModuleKeys) -> Any:
        """The adapter's configuration for a skeleton without the rest of the model."""
        config = copy.deepcopy(self._config)
        config.task_type = None
        config.modules_to_save = None
        config.base_model_name_or_path = None
        if hasattr(config, "trainable_token_indices"):
            config.trainable_token_indices = None
        if config.peft_type == "ADALORA" and config.rank_pattern is not None:
            own = f"{module.path}.lora_E"
            config.rank_pattern = {name: kept for name, kept in config.rank_pattern.items() if name.startswith(own)}
        if config.target_modules is None or config.target_modules == "all-linear":
            config.target_modules = [module.path, *self._widest]
        return config

    def _widest_modules(self, keys: AdapterKeys, linear: Mapping[str, TensorInfo]) -> dict[str, tuple[int, ...]]:
        """PEFT sizes shared tensors by the largest targeted modules, so each skeleton needs these too."""
        if not keys.shared and str(self._adapter.settings["peft_type"]) not in ("VERA", "RANDLORA"):
            return {}
        shapes = {path: linear[path].shape for path in targeted_modules(self._adapter, keys.modules, linear)}
        widest = {max(shapes, key=lambda path: shapes[path][side]) for side in (0, 1)}
        return {path: shapes[path] for path in sorted(widest)}

    def _does_not_fit(self, module: ModuleKeys, problem: Exception) -> AdapterError:
        mismatch = re.search(
            r"size mismatch for (\S+): .*?torch\.Size\((\[[\d, ]*\])\).*?torch\.Size\((\[[\d, ]*\])\)",
            str(problem),
            re.S,
        )
        if mismatch:
            key, got, expected = mismatch.groups()
            return other_base(
                self._adapter, f"{key.replace('.default', '')} has the shape {got}, and this base needs {expected}"
            )
        kind = self._adapter.settings["peft_type"]
        return AdapterError(
            f"PEFT cannot fold this {kind} adapter into {module.path} ({str(problem).strip().splitlines()[0]})",
            where=self._adapter.folder,
            remedy="merge it with the tool that trained it, and give the merged model",
        )


def load_peft_config(adapter: Adapter) -> Any:
    """The adapter's configuration as PEFT's object. Raises AdapterError."""
    quiet_libraries()
    from peft import PeftConfig

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PeftConfig.from_pretrained(str(adapter.folder))
    except (KeyError, TypeError, ValueError, OSError) as problem:
        raise AdapterError(
            f"PEFT does not understand its configuration ({problem})",
            where=adapter.folder,
            remedy="it may need a newer PEFT: pip install -U peft",
        ) from problem


def _layer(module: ModuleKeys, parameters: dict[str, torch.Tensor], config: Any, adapter: Adapter) -> torch.nn.Module:
    import torch
    from transformers.pytorch_utils import Conv1D

    weight, bias = parameters["weight"], parameters.get("bias")
    if weight.ndim != 2:
        raise AdapterError(
            f"adapts {module.path}, which is neither a linear layer nor an embedding", where=adapter.folder
        )
    rows, columns = weight.shape
    named = module.path.rsplit(".", 1)[-1] in _EMBEDDINGS
    with torch.device("meta"):
        layer: torch.nn.Module
        if named or any("lora_embedding" in key for key in module.adapter_keys):
            layer = torch.nn.Embedding(rows, columns)
        elif getattr(config, "fan_in_fan_out", False):
            layer = Conv1D(columns, rows)
        else:
            layer = torch.nn.Linear(columns, rows, bias=bias is not None)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    return layer


def _widen(model: Any) -> None:
    """The last step of from_pretrained: layers that were replaced while loading (AdaLoRA's) get float32 weights too."""
    if hasattr(model.base_model, "_cast_adapter_dtype"):
        model.base_model._cast_adapter_dtype(adapter_name="default", autocast_adapter_dtype=True)


def _attach(root: torch.nn.Module, path: str, module: torch.nn.Module) -> None:
    import torch

    *parents, last = path.split(".")
    place = root
    for name in parents:
        if name not in dict(place.named_children()):
            place.add_module(name, torch.nn.Module())
        place = place.get_submodule(name)
    place.add_module(last, module)
