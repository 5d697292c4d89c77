"""`extends: NAME-or-path`: a recipe file that says only what differs from another."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune import assets
from edgetune.errors import RecipeError
from edgetune.recipe.data import DATA_SUFFIXES, SPREADSHEET_SUFFIXES
from edgetune.recipe.schema import Recipe
from edgetune.recipe.yaml_input import nearest, read_mapping

KEY = "extends"
_FILES = (*DATA_SUFFIXES, *SPREADSHEET_SUFFIXES)


@dataclass(frozen=True)
class Layer:
    """What one file says, `extends` taken out and local paths absolute."""

    file: Path
    values: dict[str, Any]


def read_layers(recipe: Path | Mapping[str, Any]) -> tuple[Layer, ...]:
    """This recipe file, the one that it extends, the one that that one extends, and so on.

    A mapping is what a file in the working directory would say; errors call it `recipe`.
    Raises RecipeError naming the file whose `extends` leads nowhere, or back to where it came from.
    """
    layers: list[Layer] = []
    file = recipe if isinstance(recipe, Path) else Path("recipe")
    while True:
        if any(file.resolve() == layer.file.resolve() for layer in layers):
            way = " → ".join(path.name for path in (*(layer.file for layer in layers), file))
            raise RecipeError(f"{KEY} goes in a circle: {way}", where=layers[-1].file)
        values = plain_copy(recipe) if isinstance(recipe, Mapping) else read_mapping(file)
        _check_keys(values, file)
        parent = _find_parent(values.pop(KEY), file) if KEY in values else None
        make_paths_absolute(values, file.resolve().parent)
        layers.append(Layer(file, values))
        if parent is None:
            return tuple(layers)
        recipe = file = parent


def merge_layers(layers: Sequence[Layer]) -> dict[str, Any]:
    """One recipe's values from files in the order of read_layers.

    Mappings merge key by key; lists and plain values replace. A section whose `type` changes (another method) replaces
    the one below it, so that nothing of the old type is left.
    """
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = _merge(layer.values, onto=merged)
    return plain_copy(merged)


def author(layers: Sequence[Layer], field: Sequence[str]) -> Path:
    """The file that says what stands at this place of the merged recipe; the recipe's own where none says anything."""
    return next((layer.file for layer in layers if _says(layer.values, field)), layers[0].file)


def make_paths_absolute(values: dict[str, Any], folder: Path) -> None:
    """Data files, template and local model that `values` name relative to `folder` become absolute, in place.

    What is of a wrong type is left as it stands, for the schema to refuse.
    """
    data, base = values.get("data"), values.get("base")
    if isinstance(data, dict):
        for sources in (data.get("train"), data.get("eval")):
            for source in sources if isinstance(sources, list) else ():
                if isinstance(source, dict) and _is_local(source.get("source"), _FILES):
                    source["source"] = str((folder / source["source"]).resolve())
        if isinstance(data.get("template"), str) and data["template"] not in ("chat", "alpaca"):
            data["template"] = str((folder / data["template"]).resolve())
    if isinstance(base, dict) and _is_local(base.get("model"), (".gguf",)):
        base["model"] = str((folder / base["model"]).resolve())
    elif _is_local(base, (".gguf",)):
        values["base"] = str((folder / str(base)).resolve())


def _is_local(reference: object, suffixes: tuple[str, ...]) -> bool:
    """True for a path; a hub id has the form of one, but neither begins with a dot or slash nor ends so."""
    if not isinstance(reference, str) or reference.startswith("package:"):
        return False
    return reference.startswith((".", "/")) or reference.lower().endswith(suffixes)


def _check_keys(values: Mapping[str, Any], file: Path) -> None:
    """The schema does not know `extends`, and a recipe that misspells it would miss everything else first."""
    known = (KEY, *Recipe.model_fields)
    for key in values:
        if key not in known:
            raise RecipeError(
                f"unknown key {key}{nearest(str(key), known)}; known here: {', '.join(sorted(known))}", where=file
            )


def _find_parent(name: object, file: Path) -> Path:
    if not isinstance(name, str) or not name:
        raise RecipeError(
            f"{KEY} is {name!r}; it must be the name of a shipped recipe or the path of a file", where=file
        )
    beside = file.parent / name
    if beside.is_file():
        return beside
    shipped = assets.shipped_files("recipes", "**/*.yaml")
    if name not in shipped:
        raise RecipeError(
            f"{KEY} names {name}, and there is no such recipe{nearest(name, shipped)}",
            where=file,
            remedy="give the name of a shipped recipe, or a path relative to this file",
        )
    return shipped[name]


def _merge(values: Mapping[str, Any], *, onto: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(onto)
    for key, value in values.items():
        below = merged.get(key)
        if key == "base" and isinstance(below, str):
            below = {"model": below}
        if isinstance(value, dict) and isinstance(below, dict) and not _changes_type(value, below):
            merged[key] = _merge(value, onto=below)
        else:
            merged[key] = value
    return merged


def plain_copy(value: Any) -> Any:
    """A copy of dicts and lists all the way down, with paths as text.

    A YAML anchor makes one object of two places; an override of one must not change the other.
    """
    if isinstance(value, Mapping):
        return {key: plain_copy(item) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [plain_copy(item) for item in value] if isinstance(value, list | tuple) else value


def _changes_type(values: Mapping[str, Any], below: Mapping[str, Any]) -> bool:
    return "type" in values and values["type"] != below.get("type")


def _says(values: Mapping[str, Any], field: Sequence[str]) -> bool:
    place: Any = values
    for step in field:
        if isinstance(place, list):  # a list replaces, so all within it is this file's
            return True
        if not isinstance(place, dict) or step not in place:
            return False
        place = place[step]
    return True
