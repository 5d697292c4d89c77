"""Finds the configuration of a recipe's base. Weights are never read or downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetune.errors import ModelError
from edgetune.models.checkpoint import weight_files
from edgetune.models.locate import PACKAGE_PREFIX, ModelFiles, download, locate_model
from edgetune.planning.shipped import find_shipped, shipped_configurations
from edgetune.recipe.schema import Base
from edgetune.recipe.yaml_input import nearest

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Origin = Literal["files", "cache", "shipped", "hub"]


@dataclass(frozen=True)
class PlannedBase:
    """The configuration of a base, and its files where they are here.

    `stored` holds the names of the weights in the files; `files` is None for a model that is not here.
    """

    reference: str
    config: PretrainedConfig
    origin: Origin
    files: ModelFiles | None = None
    stored: frozenset[str] = frozenset()

    @property
    def has_weights(self) -> bool:
        """True when weights and tokenizer are here, so that training needs no download of the base."""
        if self.files is None:
            return False
        return self.files.gguf is not None or bool(weight_files(self.files.folder))


def find_base(base: Base) -> PlannedBase:
    """The configuration of a recipe's base: from its files, the hub's cache, edgetune, or a downloaded config.json.

    Raises ModelError when none of them has it.
    """
    from edgetune.models.load import load_config, quiet_libraries

    quiet_libraries()
    if not _is_hub_id(base.model):
        files = locate_model(base.model)
        return PlannedBase(base.model, load_config(files), "files", files, _stored_names(files))
    if (cached := _cached_config(base)) is not None:
        files = ModelFiles(base.model, cached.parent)
        return PlannedBase(base.model, load_config(files), "cache", files, _stored_names(files))
    shipped = find_shipped(base.model)
    if shipped is not None:
        from transformers import CONFIG_MAPPING

        settings = dict(shipped.settings)
        return PlannedBase(base.model, CONFIG_MAPPING[settings["model_type"]].from_dict(settings), "shipped")
    return PlannedBase(base.model, load_config(ModelFiles(base.model, _downloaded(base))), "hub")


def _is_hub_id(reference: str) -> bool:
    path = Path(reference).expanduser()
    local = reference.startswith((PACKAGE_PREFIX, ".", "/", "~")) or path.suffix == ".gguf" or path.exists()
    return not local and reference.count("/") == 1


def _cached_config(base: Base) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base.model, "config.json", revision=base.revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _downloaded(base: Base) -> Path:
    try:
        return download(base.model, ["config.json"], revision=base.revision)
    except ModelError as problem:
        known = {hub_id: shape.name for shape in shipped_configurations() for hub_id in shape.hub_ids}
        raise ModelError(
            f"its configuration was not found: {problem.what}{nearest(base.model, known)}",
            where=base.model,
            remedy="give the path of a model folder, or plan with a configuration that ships with edgetune: "
            + ", ".join(sorted(set(known.values()))),
        ) from problem


def _stored_names(files: ModelFiles) -> frozenset[str]:
    """Names of the weights in a folder's safetensors files. A GGUF's configuration already says what is tied."""
    from edgetune.models.safetensors_file import SafetensorsFile

    if files.gguf is not None:
        return frozenset()
    return frozenset(name for file in weight_files(files.folder) for name in SafetensorsFile(file).tensors)
