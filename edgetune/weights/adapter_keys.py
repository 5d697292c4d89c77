"""Assigns the keys of an adapter's file to the modules of the base, by their purpose."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from edgetune.errors import AdapterError
from edgetune.models.families import TEXT_PREFIX
from edgetune.weights.adapter_file import MODEL_PREFIX, PEFT_PREFIX, split_key
from edgetune.weights.base import TensorInfo
from edgetune.weights.source import Adapter
from edgetune.weights.targets import is_targeted, targets_all

_ROWS = ("token_adapter.trainable_tokens_delta", "trainable_tokens_delta")
"""Trained rows: beside another method (trainable_token_indices), and as a method of their own (TRAINABLE_TOKENS)."""

_OUTPUT_LAYER = "lm_head"

_TRAINED = ("", "modules_to_save.")
_FROZEN = ("token_adapter.base_layer.", "base_layer.", "original_module.")
"""Prefixes of a parameter that was saved whole; the first one counts.

After a change of the vocabulary, PEFT saves everything in the embedding and the output layer, under the names of their
wrappers: what was trained, and its initial values.
"""


@dataclass(frozen=True)
class TokenRows:
    """Trained rows of an embedding or output layer: the key, and the tokens of the rows."""

    key: str
    indices: tuple[int, ...]


@dataclass
class ModuleKeys:
    """The keys of one module."""

    path: str
    adapter_keys: list[str] = field(default_factory=list)
    replacements: dict[str, str] = field(default_factory=dict)
    """Parameter ("weight" or "bias") -> the key of the tensor that replaces it: modules_to_save, trained biases, and
    what was saved after a change of the vocabulary."""
    frozen_weight: str | None = None
    """The key of the module's weight before training, where the file holds it."""
    rows: TokenRows | None = None


@dataclass(frozen=True)
class AdapterKeys:
    """An adapter's keys by module path, and those of all modules."""

    modules: dict[str, ModuleKeys]
    shared: list[str]


def assign_keys(adapter: Adapter, keys: Collection[str], base: Mapping[str, TensorInfo]) -> AdapterKeys:
    """Assign each key to a module of `base`.

    Raises AdapterError when the base lacks a module that the adapter has tensors for, when the adapter lacks tensors
    for modules that its configuration targets (they would silently stay unchanged), or has no tensors.
    """
    linear = {name.rpartition(".")[0]: info for name, info in base.items() if name.endswith(".weight")}
    modules: dict[str, ModuleKeys] = {}
    whole: dict[str, dict[str, dict[str, str]]] = {}
    shared: list[str] = []
    strays: list[str] = []
    for key in sorted(keys):
        if not key.startswith(MODEL_PREFIX):
            known = key.startswith(PEFT_PREFIX) and adapter.settings["peft_type"] != "LORA"
            (shared if known else strays).append(key)
            continue
        path, rest = split_key(key.removeprefix(MODEL_PREFIX), linear)
        before, parameter = _whole_parameter(rest)
        if path is None or (parameter == "bias" and f"{path}.bias" not in base):
            strays.append(key)
            continue
        module = modules.setdefault(path, ModuleKeys(path))
        if parameter is not None:
            whole.setdefault(path, {}).setdefault(parameter, {})[before] = key
        elif rest in _ROWS:
            module.rows = TokenRows(key, _token_indices(adapter, path))
        else:
            module.adapter_keys.append(key)
    if strays:
        _refuse_missing_head(adapter, strays)
        more = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
        raise other_base(adapter, f"this one has no module for {strays[0]}{more}")
    if not modules:
        raise AdapterError("has no tensors", where=adapter.weights, remedy="was the training interrupted?")
    for path, saved in whole.items():
        _place_whole(adapter, modules[path], saved)
    _refuse_incomplete(adapter, modules, linear)
    return AdapterKeys(modules, shared)


def _whole_parameter(rest: str) -> tuple[str, str | None]:
    """modules_to_save.weight -> ("modules_to_save.", "weight"); (…, None) for what was not saved whole."""
    for parameter in ("weight", "bias"):
        before = rest.removesuffix(parameter)
        if before != rest and before in (*_TRAINED, *_FROZEN):
            return before, parameter
    return rest, None


def _place_whole(adapter: Adapter, module: ModuleKeys, saved: Mapping[str, Mapping[str, str]]) -> None:
    """Choose among the tensors that were saved whole for one module: `saved` is by parameter and prefix."""
    for parameter, keys in saved.items():
        module.replacements[parameter] = next(keys[before] for before in (*_TRAINED, *_FROZEN) if before in keys)
    weights = saved.get("weight", {})
    module.frozen_weight = next((weights[before] for before in _FROZEN if before in weights), None)
    retrained = "modules_to_save." in weights or _is_saved_whole(adapter, module.path)
    if module.frozen_weight is None and not retrained:
        module.frozen_weight = weights.get("")


def _is_saved_whole(adapter: Adapter, path: str) -> bool:
    """True for a module that was trained whole, as peft.utils.other._set_trainable decides."""
    return any(path.endswith(name) for name in adapter.settings.get("modules_to_save") or ())


def _token_indices(adapter: Adapter, path: str) -> tuple[int, ...]:
    """The tokens whose rows of the module at `path` were trained. Raises AdapterError when they are unknown."""
    recorded = adapter.settings.get("trainable_token_indices") or adapter.settings.get("token_indices") or ()
    if isinstance(recorded, dict):
        recorded = next((indices for name, indices in recorded.items() if path.endswith(name)), ())
    if not recorded:
        raise incomplete(adapter, f"has trained rows of {path}, and its configuration does not name their tokens")
    return tuple(recorded)


def targeted_modules(
    adapter: Adapter, modules: Mapping[str, ModuleKeys], linear: Mapping[str, TensorInfo]
) -> list[str]:
    """Paths of the modules that the adapter's configuration targets. `linear`: the base's weights by module path."""
    if targets_all(adapter.settings):
        return [path for path, module in modules.items() if module.adapter_keys]
    meant = [path for path, info in linear.items() if len(info.shape) == 2 and is_targeted(adapter.settings, path)]
    # An adapter of the text model alone does not target modules with the same names outside it.
    of_text = {path for path in linear if path.startswith(TEXT_PREFIX)}
    alone = bool(of_text) and modules.keys() <= of_text | {_OUTPUT_LAYER}
    return [path for path in meant if path in of_text | {_OUTPUT_LAYER}] if alone else meant


def other_base(adapter: Adapter, how: str) -> AdapterError:
    """The error for an adapter that does not fit the base; `how` names the difference."""
    return AdapterError(
        f"was made for another base: {how}",
        where=adapter.folder,
        remedy=f"it records {adapter.recorded_base}; name the right base with --base MODEL",
    )


def incomplete(adapter: Adapter, what: str) -> AdapterError:
    """The error for an adapter whose configuration and tensors contradict each other."""
    return AdapterError(what, where=adapter.folder, remedy="the adapter's files do not belong together")


def _refuse_incomplete(adapter: Adapter, modules: Mapping[str, ModuleKeys], linear: Mapping[str, TensorInfo]) -> None:
    lost = [
        path
        for path in targeted_modules(adapter, modules, linear)
        if path not in modules or _is_empty_wrapper(modules[path])
    ]
    if adapter.settings.get("trainable_token_indices") and not any(module.rows for module in modules.values()):
        raise incomplete(adapter, "its configuration says that rows of tokens were trained, and it has no such rows")
    if lost:
        more = f" and {len(lost) - 1} more modules" if len(lost) > 1 else ""
        raise AdapterError(
            f"its configuration targets {lost[0]}{more}, and it has no tensors for {'them' if more else 'it'}",
            where=adapter.folder,
            remedy="the adapter is incomplete, or was made for a smaller base (--base MODEL)",
        )


def _is_empty_wrapper(module: ModuleKeys) -> bool:
    """True where the file has the base weight of an adapter's layer, and nothing of the adapter."""
    return (
        module.frozen_weight is not None
        and ".base_layer." in module.frozen_weight
        and not (module.adapter_keys or module.rows)
    )


def _refuse_missing_head(adapter: Adapter, strays: Collection[str]) -> None:
    """Raise AdapterError where the base only lacks the classification head that was trained with the adapter."""
    heads = {f"{MODEL_PREFIX}{name}." for name in adapter.settings.get("modules_to_save") or ()}
    if adapter.settings.get("task_type") != "SEQ_CLS" or not all(key.startswith(tuple(heads)) for key in strays):
        return
    names = sorted({key.removeprefix(MODEL_PREFIX).split(".")[0] for key in strays})
    raise AdapterError(
        f"was trained with a classification head ({', '.join(names)}), and this base has none",
        where=adapter.folder,
        remedy="write the whole model with edgetune merge, or use the adapter with PEFT as it is",
    )
