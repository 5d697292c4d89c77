"""Folds an adapter into one module at a time, with PEFT's own layer code.

A module is folded inside a skeleton that holds only it, under its own dotted path: PEFT then applies the adapter's
configuration (target rules, rank and alpha patterns) as it would in the whole model, and the weights come out the same.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgetune.errors import AdapterError, NumericalError
from edgetune.weights.base import TensorInfo, open_safetensors
from edgetune.weights.source import Adapter

if TYPE_CHECKING:
    import torch

_MODEL_PREFIX = "base_model.model."
"""PEFT's name for the base inside the adapter's keys. A key without it belongs to all modules (VeRA's projections)."""

_EMBEDDINGS = ("embed_tokens", "embed_positions", "wte", "wpe", "word_embeddings", "embedding", "shared")
_TOKEN_ROWS = "token_adapter.trainable_tokens_delta"


@dataclass
class ModuleFold:
    """What the adapter holds for one module: keys by what they do to it."""

    path: str
    adapter_keys: list[str] = field(default_factory=list)
    replacements: dict[str, str] = field(default_factory=dict)
    """Parameter ("weight" or "bias") -> the key whose tensor takes its place: modules_to_save, trained biases."""
    row_key: str | None = None
    """Newly trained rows of an embedding (trainable_token_indices)."""


class AdapterFolder:
    """An opened adapter, able to fold the modules that it changes.

    base: shapes of the base's tensors by name. Raises AdapterError when the method cannot be merged, when the adapter
    names modules that the base does not have, or lacks tensors for modules that its configuration targets.
    """

    def __init__(self, adapter: Adapter, base: Mapping[str, TensorInfo]) -> None:
        self.adapter = adapter
        self.config = _load_config(adapter)
        self._refuse_unmergeable()
        self._tensors = open_safetensors(adapter.weights)
        modules = {name.rpartition(".")[0]: info for name, info in base.items() if name.endswith(".weight")}
        self.folds, self._shared = self._assign_keys(modules, base)
        self._refuse_incomplete(modules)
        self._widest = self._widest_modules(modules)

    def replacement_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of the tensor that takes the place of base tensor `name`; None when none does."""
        path, _, parameter = name.rpartition(".")
        fold = self.folds.get(path)
        if fold is None or parameter not in fold.replacements:
            return None
        return tuple(self._tensors.get_slice(fold.replacements[parameter]).get_shape())

    def replacement(self, name: str) -> torch.Tensor:
        """The tensor that takes the place of base tensor `name`."""
        path, _, parameter = name.rpartition(".")
        tensor: torch.Tensor = self._tensors.get_tensor(self.folds[path].replacements[parameter])
        return tensor

    def fold(self, path: str, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The folded parameters of one module, in the dtypes of `parameters` ("weight", perhaps "bias").

        Raises AdapterError when shapes do not fit, NumericalError when PEFT's safe merge finds a value that is not
        finite.
        """
        fold = self.folds[path]
        merged = dict(parameters)
        for parameter in fold.replacements:
            if parameter in parameters:
                merged[parameter] = self.replacement(f"{path}.{parameter}").to(parameters[parameter].dtype)
        if fold.row_key is not None:
            merged["weight"] = self._with_new_rows(fold, merged["weight"])
        if fold.adapter_keys:
            merged = self._fold_with_peft(fold, merged)
        return merged

    def _fold_with_peft(self, fold: ModuleFold, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

        config = self._config_for(fold)
        skeleton = _nest(fold.path, _module(fold, parameters, config))
        for path, shape in self._widest.items():
            if path != fold.path:
                _attach(skeleton, path, _stand_in(shape, parameters["weight"].dtype))
        tensors = {key: self._tensors.get_tensor(key) for key in (*fold.adapter_keys, *self._shared)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model = get_peft_model(skeleton, config)
                result = set_peft_model_state_dict(model, tensors)
            except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, NotImplementedError) as problem:
                raise self._does_not_fit(fold, problem) from problem
            needed = get_peft_model_state_dict(model, save_embedding_layers=False)
            own = f"{_MODEL_PREFIX}{fold.path}."
            lost = [key for key in needed if key.startswith(own) and "base_layer" not in key and key not in tensors]
            if lost or result.unexpected_keys:
                key = (lost or result.unexpected_keys)[0].replace(".default", "")
                what = f"lacks the tensor {key}" if lost else f"holds {key}, which its configuration does not use"
                raise AdapterError(what, where=self.adapter.folder, remedy="the adapter's files do not belong together")
            try:
                whole = model.merge_and_unload(safe_merge=True)
            except ValueError as problem:
                if "NaN" in str(problem):
                    raise NumericalError(
                        f"folding the adapter into {fold.path} gives values that are not finite",
                        where=self.adapter.folder,
                    ) from problem
                raise self._does_not_fit(fold, problem) from problem
            except (NotImplementedError, AttributeError, RuntimeError) as problem:
                raise self._does_not_fit(fold, problem) from problem
        module = whole.get_submodule(fold.path)
        merged = {"weight": module.weight.data}
        if getattr(module, "bias", None) is not None:
            merged["bias"] = module.bias.data
        return merged

    def _config_for(self, fold: ModuleFold) -> Any:
        """The adapter's configuration, made fit for a skeleton without the rest of the model."""
        config = copy.deepcopy(self.config)
        config.task_type = None
        config.modules_to_save = None
        config.base_model_name_or_path = None
        if hasattr(config, "trainable_token_indices"):
            config.trainable_token_indices = None
        if config.target_modules is None or config.target_modules == "all-linear":
            config.target_modules = [fold.path, *self._widest]
        return config

    def _with_new_rows(self, fold: ModuleFold, weight: torch.Tensor) -> torch.Tensor:
        indices = self.config.trainable_token_indices
        rows = self._tensors.get_tensor(fold.row_key)
        if isinstance(indices, dict):
            indices = next(value for name, value in indices.items() if fold.path.endswith(name))
        if len(indices) != len(rows) or rows.shape[1:] != weight.shape[1:]:
            raise AdapterError(
                f"{fold.row_key} has the shape {tuple(rows.shape)}, which fits neither its indices nor the base",
                where=self.adapter.folder,
            )
        weight = weight.clone()
        weight[indices] = rows.to(weight.dtype)
        return weight

    def _refuse_unmergeable(self) -> None:
        kind = str(self.adapter.settings["peft_type"]).removeprefix("PeftType.")
        if self.config.is_prompt_learning or kind in ("ADAPTION_PROMPT", "XLORA", "POLY"):
            raise AdapterError(
                f"{kind} adds to the input or the computation instead of changing weights, so it cannot be folded in",
                where=self.adapter.folder,
                remedy="use the adapter with PEFT, or train one with method lora or ia3",
            )
        for option in ("layer_replication", "target_parameters", "megatron_config"):
            if getattr(self.config, option, None):
                raise AdapterError(
                    f"{option} is set, and edgetune cannot fold such an adapter",
                    where=self.adapter.folder,
                    remedy="merge it with PEFT's merge_and_unload and give the merged model",
                )

    def _assign_keys(
        self, modules: Mapping[str, TensorInfo], base: Mapping[str, TensorInfo]
    ) -> tuple[dict[str, ModuleFold], list[str]]:
        folds: dict[str, ModuleFold] = {}
        shared: list[str] = []
        strays: list[str] = []
        for key in sorted(self._tensors.keys()):
            if not key.startswith(_MODEL_PREFIX):
                shared.append(key)
                continue
            path, rest = _split(key.removeprefix(_MODEL_PREFIX), modules)
            parameter = rest.removeprefix("base_layer.").removeprefix("modules_to_save.")
            if path is None or (parameter == "bias" and f"{path}.bias" not in base):
                strays.append(key)
                continue
            fold = folds.setdefault(path, ModuleFold(path))
            if parameter in ("weight", "bias"):
                fold.replacements[parameter] = key
            elif rest == _TOKEN_ROWS:
                fold.row_key = key
            else:
                fold.adapter_keys.append(key)
        if strays:
            more = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
            raise AdapterError(
                f"was made for another base: this one has no module for {strays[0]}{more}",
                where=self.adapter.folder,
                remedy=f"it records {self.adapter.recorded_base}; name the right base with --base MODEL",
            )
        if not folds:
            raise AdapterError("holds no tensors", where=self.adapter.weights, remedy="was the training interrupted?")
        return folds, shared

    def _refuse_incomplete(self, modules: Mapping[str, TensorInfo]) -> None:
        """A lost tensor would silently leave its module as it was."""
        lost = [path for path in self._targeted(modules) if path not in self.folds]
        if lost:
            raise AdapterError(
                f"its configuration targets {lost[0]} and {len(lost) - 1} more modules that it has no tensors for"
                if len(lost) > 1
                else f"its configuration targets {lost[0]}, which it has no tensors for",
                where=self.adapter.folder,
                remedy="the adapter is incomplete, or was made for a smaller base (--base MODEL)",
            )

    def _targeted(self, modules: Mapping[str, TensorInfo]) -> Iterable[str]:
        from peft.tuners.tuners_utils import check_target_module_exists

        targets = getattr(self.config, "target_modules", None)
        if targets is None or targets == "all-linear":
            return [path for path, fold in self.folds.items() if fold.adapter_keys]
        return [
            path
            for path, info in modules.items()
            if len(info.shape) == 2 and check_target_module_exists(self.config, path)
        ]

    def _widest_modules(self, modules: Mapping[str, TensorInfo]) -> dict[str, tuple[int, ...]]:
        """Where tensors are shared, PEFT sizes them by the largest targeted modules, so these stand beside each."""
        if not self._shared and str(self.adapter.settings["peft_type"]) not in ("VERA", "RANDLORA"):
            return {}
        shapes = {path: modules[path].shape for path in self._targeted(modules)}
        widest = {max(shapes, key=lambda path: shapes[path][side]) for side in (0, 1)}
        return {path: shapes[path] for path in sorted(widest)}

    def _does_not_fit(self, fold: ModuleFold, problem: Exception) -> AdapterError:
        mismatch = re.search(
            r"size mismatch for (\S+): .*?torch\.Size\((\[[\d, ]*\])\).*?torch\.Size\((\[[\d, ]*\])\)",
            str(problem),
            re.S,
        )
        if mismatch:
            key, got, expected = mismatch.groups()
            key = key.replace(".default", "")
            return AdapterError(
                f"was made for another base: {key} has the shape {got}, this base needs {expected}",
                where=self.adapter.folder,
                remedy=f"it records {self.adapter.recorded_base}; name the right base with --base MODEL",
            )
        kind = self.adapter.settings["peft_type"]
        return AdapterError(
            f"PEFT cannot fold this {kind} adapter into {fold.path} ({str(problem).strip().splitlines()[0]})",
            where=self.adapter.folder,
            remedy="merge it with the tool that trained it, and give the merged model",
        )


def _load_config(adapter: Adapter) -> Any:
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


def _split(name: str, modules: Mapping[str, TensorInfo]) -> tuple[str | None, str]:
    """model.layers.0.q_proj.lora_A.weight -> (model.layers.0.q_proj, lora_A.weight); None when no module fits."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        path = ".".join(parts[:length])
        if path in modules:
            return path, ".".join(parts[length:])
    return None, name


def _module(fold: ModuleFold, parameters: dict[str, torch.Tensor], config: Any) -> torch.nn.Module:
    import torch
    from transformers.pytorch_utils import Conv1D

    weight, bias = parameters["weight"], parameters.get("bias")
    if weight.ndim != 2:
        raise AdapterError(f"adapts {fold.path}, which is neither a linear layer nor an embedding", where=None)
    rows, columns = weight.shape
    embedding = fold.path.rsplit(".", 1)[-1] in _EMBEDDINGS or any("lora_embedding" in key for key in fold.adapter_keys)
    with torch.device("meta"):
        module: torch.nn.Module
        if embedding:
            module = torch.nn.Embedding(rows, columns)
        elif getattr(config, "fan_in_fan_out", False):
            module = Conv1D(columns, rows)
        else:
            module = torch.nn.Linear(columns, rows, bias=bias is not None)
    module.weight = torch.nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        module.bias = torch.nn.Parameter(bias, requires_grad=False)
    return module


def _stand_in(shape: tuple[int, ...], dtype: torch.dtype) -> torch.nn.Module:
    import torch

    return torch.nn.Linear(shape[1], shape[0], bias=False, dtype=dtype)


def _nest(path: str, module: torch.nn.Module) -> torch.nn.Module:
    import torch

    root = torch.nn.Module()
    _attach(root, path, module)
    return root


def _attach(root: torch.nn.Module, path: str, module: torch.nn.Module) -> None:
    import torch

    *parents, last = path.split(".")
    place = root
    for name in parents:
        if name not in dict(place.named_children()):
            place.add_module(name, torch.nn.Module())
        place = place.get_submodule(name)
    place.add_module(last, module)
