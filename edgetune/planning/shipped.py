"""Configurations of common models that ship with edgetune, so that a plan needs neither network nor weights.

They come from the models' public config.json files; `parameters` is the number on their pages, which a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).resolve().parent / "configs"


@dataclass(frozen=True)
class ShippedConfiguration:
    name: str
    hub_ids: tuple[str, ...]
    parameters: int
    settings: Mapping[str, Any]


@cache
def shipped_configurations() -> tuple[ShippedConfiguration, ...]:
    found = []
    for file in sorted(_FOLDER.glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        found.append(
            ShippedConfiguration(file.stem, tuple(content["hub_ids"]), content["parameters"], content["config"])
        )
    return tuple(found)


def find_shipped(hub_id: str) -> ShippedConfiguration | None:
    """The configuration of a hub id in any letter case, as on the hub; None where none ships."""
    wanted = hub_id.casefold()
    for configuration in shipped_configurations():
        if wanted in (known.casefold() for known in configuration.hub_ids):
            return configuration
    return None
