"""What an adapter's file holds for each module of the base: its keys, by what they do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from edgetune.errors import AdapterError
from edgetune.weights.base import TensorInfo
from edgetune.weights.source import Adapter
from edgetune.weights.targets import is_targeted, targets_all

MODEL_PREFIX = "base_model.model."
"""PEFT's name for the base inside the adapter's keys. A key without it belongs to all modules (VeRA's projections)."""

_TOKEN_ROWS = "token_adapter.trainable_tokens_delta"


@dataclass
class ModuleKeys:
    """The keys of one module."""

    path: str
    adapter_keys: list[str] = field(default_factory=list)
    replacements: dict[str, str] = field(default_factory=dict)
    """Parameter ("weight" or "bias") -> the key whose tensor takes its place: modules_to_save, trained biases."""
    row_key: str | None = None
    """Newly trained rows of an embedding (trainable_token_indices)."""


@dataclass(frozen=True)
class AdapterKeys:
    """An adapter's keys by module path, and those that belong to all modules."""

    modules: dict[str, ModuleKeys]
    shared: list[str]


def assign_keys(adapter: Adapter, keys: Collection[str], base: Mapping[str, TensorInfo]) -> AdapterKeys:
    """Tell which module of `base` each key belongs to.

    Raises AdapterError when the base lacks a module that the adapter has tensors for, when the adapter lacks tensors
    for modules that its configuration targets (they would silently stay as they were), or holds nothing.
    """
    linear = {name.rpartition(".")[0]: info for name, info in base.items() if name.endswith(".weight")}
    modules: dict[str, ModuleKeys] = {}
    shared: list[str] = []
    strays: list[str] = []
    for key in sorted(keys):
        if not key.startswith(MODEL_PREFIX):
            shared.append(key)
            continue
        path, rest = _split(key.removeprefix(MODEL_PREFIX), linear)
        parameter = rest.removeprefix("base_layer.").removeprefix("modules_to_save.")
        if path is None or (parameter == "bias" and f"{path}.bias" not in base):
            strays.append(key)
            continue
        module = modules.setdefault(path, ModuleKeys(path))
        if parameter in ("weight", "bias"):
            module.replacements[parameter] = key
        elif rest == _TOKEN_ROWS:
            module.row_key = key
        else:
            module.adapter_keys.append(key)
    if strays:
        _refuse_missing_head(adapter, strays)
        more = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
        raise other_base(adapter, f"this one has no module for {strays[0]}{more}")
    if not modules:
        raise AdapterError("holds no tensors", where=adapter.weights, remedy="was the training interrupted?")
    _refuse_incomplete(adapter, modules, linear)
    return AdapterKeys(modules, shared)


def targeted_modules(
    adapter: Adapter, modules: Mapping[str, ModuleKeys], linear: Mapping[str, TensorInfo]
) -> list[str]:
    """Paths of the modules that the adapter's configuration means. `linear`: the base's weights by module path."""
    if targets_all(adapter.settings):
        return [path for path, module in modules.items() if module.adapter_keys]
    return [path for path, info in linear.items() if len(info.shape) == 2 and is_targeted(adapter.settings, path)]


def other_base(adapter: Adapter, how: str) -> AdapterError:
    """The error for an adapter that does not fit the base; `how` says in what."""
    return AdapterError(
        f"was made for another base: {how}",
        where=adapter.folder,
        remedy=f"it records {adapter.recorded_base}; name the right base with --base MODEL",
    )


def incomplete(adapter: Adapter, what: str) -> AdapterError:
    """The error for an adapter whose configuration and tensors do not agree."""
    return AdapterError(what, where=adapter.folder, remedy="the adapter's files do not belong together")


def _refuse_incomplete(adapter: Adapter, modules: Mapping[str, ModuleKeys], linear: Mapping[str, TensorInfo]) -> None:
    lost = [path for path in targeted_modules(adapter, modules, linear) if path not in modules]
    if lost:
        raise AdapterError(
            f"its configuration targets {lost[0]} and {len(lost) - 1} more modules that it has no tensors for"
            if len(lost) > 1
            else f"its configuration targets {lost[0]}, which it has no tensors for",
            where=adapter.folder,
            remedy="the adapter is incomplete, or was made for a smaller base (--base MODEL)",
        )


def _refuse_missing_head(adapter: Adapter, strays: Collection[str]) -> None:
    """Raise AdapterError where all that the base lacks is the classification head that was trained with the adapter."""
    heads = {f"{MODEL_PREFIX}{name}." for name in adapter.settings.get("modules_to_save") or ()}
    if adapter.settings.get("task_type") != "SEQ_CLS" or not all(key.startswith(tuple(heads)) for key in strays):
        return
    names = sorted({key.removeprefix(MODEL_PREFIX).split(".")[0] for key in strays})
    raise AdapterError(
        f"was trained with a classification head ({', '.join(names)}), and a base without one has no place for it",
        where=adapter.folder,
        remedy="write the whole model with edgetune merge, or use the adapter with PEFT as it is",
    )


def _split(name: str, linear: Mapping[str, TensorInfo]) -> tuple[str | None, str]:
    """model.layers.0.q_proj.lora_A.weight -> (model.layers.0.q_proj, lora_A.weight); None when no module fits."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        path = ".".join(parts[:length])
        if path in linear:
            return path, ".".join(parts[length:])
    return None, name
