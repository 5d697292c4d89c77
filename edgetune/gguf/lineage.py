"""The origin of a GGUF file, written into the file: base, adapter hash, recipe, version, and the classify task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from edgetune import __version__, events
from edgetune.gguf.vocabularies.model_names import name_read_as
from edgetune.models.locate import PACKAGE_PREFIX
from edgetune.recipe.yaml_input import read_mapping
from edgetune.weights.source import ModelSource

if TYPE_CHECKING:
    from gguf import GGUFWriter


@dataclass(frozen=True)
class Lineage:
    """The values of the general.* and edgetune.* keys. `recipe` is the resolved recipe without local folders."""

    name: str
    version: str
    base: str | None = None
    base_organization: str | None = None
    adapter_sha256: str | None = None
    recipe: str | None = None
    task: str | None = None
    labels: tuple[str, ...] = ()
    prompt: str | None = None

    def called(self, word: str | None) -> Lineage:
        """With a name that llama.cpp takes for a model of `word`, because it tokenizes by the name for some models.

        A note says so if the name changes.
        """
        name = name_read_as(self.name, word)
        if name == self.name:
            return self
        events.note(
            f"the name in the file is {name!r} instead of {self.name!r}, because llama.cpp's tokenization depends on a "
            "model's name"
        )
        return replace(self, name=name)

    def describe(self, writer: GGUFWriter, kind: str = "model") -> None:
        """Write the keys that have a value; `kind` is model or adapter."""
        writer.add_type(kind)
        writer.add_name(self.name)
        if self.base is not None:
            writer.add_base_model_count(1)
            writer.add_base_model_name(0, self.base)
            if self.base_organization is not None:
                writer.add_base_model_organization(0, self.base_organization)
        writer.add_string("edgetune.version", self.version)
        texts = {"adapter.sha256": self.adapter_sha256, "recipe": self.recipe, "task": self.task, "prompt": self.prompt}
        for key, text in texts.items():
            if text is not None:
                writer.add_string(f"edgetune.{key}", text)
        if self.labels:
            writer.add_array("edgetune.labels", list(self.labels))


def trace_lineage(source: ModelSource) -> Lineage:
    """The lineage of an export."""
    recipe: Mapping[str, Any] = {} if source.recipe is None else read_mapping(source.recipe)
    data = recipe.get("data") or {}
    organization, base = (None, None) if source.adapter is None else _base_name(source.base.reference)
    return Lineage(
        name=source.name,
        version=__version__,
        base=base,
        base_organization=organization,
        adapter_sha256=None if source.adapter is None else source.adapter.sha256(),
        recipe=yaml.safe_dump(_without_folders(recipe), sort_keys=False, allow_unicode=True) if recipe else None,
        task=recipe.get("task"),
        labels=tuple(data.get("labels") or ()),
        prompt=data.get("prompt"),
    )


def _base_name(reference: str) -> tuple[str | None, str]:
    """owner/name -> (owner, name); a local path or package -> (None, its last part)."""
    if reference.startswith(PACKAGE_PREFIX):
        return None, reference.removeprefix(PACKAGE_PREFIX)
    if reference.count("/") == 1 and not Path(reference).expanduser().exists():
        owner, name = reference.split("/")
        return owner, name
    path = Path(reference)
    return None, path.stem if path.suffix == ".gguf" else path.resolve().name


def _without_folders(value: Any) -> Any:
    """Local paths shortened to file names, so that the file does not reveal its author's disk."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    if isinstance(value, str) and "\n" not in value and Path(value).expanduser().is_absolute():
        return Path(value).name
    return value
