"""PEFT's rules for the modules that an adapter targets, without PEFT, whose import takes seconds.

As in peft.tuners.tuners_utils.check_target_module_exists and peft.utils.other.get_pattern_key; tests compare them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


def targets_all(settings: Mapping[str, Any]) -> bool:
    """True when the configuration names no modules, or all linear ones: the modules with tensors are the targets."""
    targets = settings.get("target_modules")
    return targets is None or (isinstance(targets, str) and targets.lower() == "all-linear")


def is_targeted(settings: Mapping[str, Any], path: str) -> bool:
    """True when this adapter_config.json targets the module at `path`."""
    if _is_excluded(settings, path):
        return False
    targets = settings["target_modules"]
    if isinstance(targets, str):
        return re.fullmatch(targets, path) is not None
    return path in targets or (_is_named(targets, path) and _is_in_chosen_layer(settings, path))


def pattern_value(patterns: Mapping[str, Any] | None, path: str, default: Any) -> Any:
    """The value of the first pattern (rank_pattern, alpha_pattern) that matches the end of `path`, or `default`."""
    patterns = patterns or {}
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return value
    return patterns.get(path, default)


def _is_excluded(settings: Mapping[str, Any], path: str) -> bool:
    excluded = settings.get("exclude_modules")
    if isinstance(excluded, str) and excluded:
        if re.fullmatch(excluded, path):
            return True
    elif excluded and _is_named(excluded, path):
        return True
    return any(re.match(rf"(^|.*\.){saved}($|\..*)", path) for saved in settings.get("modules_to_save") or ())


def _is_named(names: Iterable[str], path: str) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)


def _is_in_chosen_layer(settings: Mapping[str, Any], path: str) -> bool:
    layers = settings.get("layers_to_transform")
    if layers is None or layers == []:
        return True
    patterns = settings.get("layers_pattern")
    if patterns:
        named = [patterns] if isinstance(patterns, str) else patterns
        found = (re.match(rf"(?:^|.*?\.){pattern}\.(?P<layer>\d+)\.", path) for pattern in named)
    else:
        found = (re.match(r".*?\.[^.]*\.(?P<layer>\d+)\.", path) for _ in range(1))
    match = next((match for match in found if match), None)
    if match is None:
        return False
    return int(match["layer"]) in ([layers] if isinstance(layers, int) else layers)
