"""A recipe argument and its overrides -> Recipe; and back to YAML for the run directory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from edgetune import assets
from edgetune.errors import RecipeError
from edgetune.recipe.extends import author, make_paths_absolute, merge_layers, plain_copy, read_layers
from edgetune.recipe.schema import Recipe
from edgetune.recipe.yaml_input import nearest, parse_yaml, validate

Named = str | os.PathLike[str] | Mapping[str, Any]
"""The name of something that ships, the path of a file, or what such a file says."""

Overrides = Mapping[str, Any] | Sequence[str]
"""Values by their dotted names, {"train.seed": 1}, or as the command line has them: ["train.seed=1"]."""


def shipped_recipes() -> dict[str, Path]:
    """The recipes that ship with edgetune, by name. A file `_NAME.yaml` is only there for others to extend."""
    files = assets.shipped_files("recipes", "**/*.yaml")
    return {name: file for name, file in files.items() if not name.startswith("_")}


def study_of(file: Path) -> str | None:
    """The study that a shipped recipe belongs to, which is its folder under recipes/studies; None for the others."""
    return file.parent.name if file.parent.parent.name == "studies" else None


def find_recipe(name: str) -> Path:
    """The file behind a recipe argument: a path, or the name of a shipped recipe. Raises RecipeError."""
    return find_named(name, shipped_recipes(), kind="recipe", remedy="`edgetune recipes` lists those that ship")


def find_named(name: str, shipped: dict[str, Path], *, kind: str, remedy: str) -> Path:
    """The file behind an argument that is a path or the name of one of the `shipped` files. Raises RecipeError."""
    if Path(name).is_file():
        return Path(name)
    if name in shipped:
        return shipped[name]
    if "/" in name or name.endswith((".yaml", ".yml")):
        raise RecipeError(f"there is no such {kind} file", where=name)
    raise RecipeError(f"there is no {kind} of this name{nearest(name, shipped)}", where=name, remedy=remedy)


def load_recipe(recipe: Named | Recipe, overrides: Overrides = ()) -> Recipe:
    """Read a recipe with all that it extends, apply overrides, and make local paths absolute.

    A file's paths are relative to its folder, those of a dict and of overrides to the working directory.

    Raises RecipeError naming the field and the file that says it.
    """
    if isinstance(recipe, Recipe):
        if not overrides:
            return recipe
        recipe = recipe.model_dump(mode="json")
    layers = read_layers(recipe if isinstance(recipe, Mapping) else find_recipe(os.fspath(recipe)))
    values = merge_layers(layers)
    said = []
    for key, value, where in _read_overrides(overrides):
        _set(values, key, value, where)
        said.append(where)
    make_paths_absolute(values, Path.cwd())  # those of the layers are absolute already

    def said_in(field: Sequence[str]) -> str:
        return " ".join([f"{author(layers, field)} with", *said] if said else [str(author(layers, field))])

    return validate(Recipe, values, where=said_in)


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out. Loading it gives the same recipe again."""
    values = recipe.model_dump(mode="json")
    body = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)
    return f"# {recipe.name}, resolved: every default is written out\n{body}"


def _read_overrides(overrides: Overrides) -> Iterator[tuple[str, Any, str]]:
    """Dotted name, value, and what errors call each. The value of a text is YAML."""
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            yield key, plain_copy(value), f"overrides[{key!r}]"
        return
    for override in overrides:
        key, equals, text = override.partition("=")
        where = f"-s {override}"
        if not equals or not key:
            raise RecipeError("an override reads key=value", where=where, remedy="try -s train.epochs=2")
        yield key, parse_yaml(text, where=where), where


def _set(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set one dotted key in place; list items are addressed by number (data.train.0.split)."""
    *parents, last = key.split(".")
    place: Any = values
    for step in parents:
        if isinstance(place, dict):
            if not isinstance(place.get(step), dict | list):
                place[step] = {"model": place["base"]} if step == "base" and "base" in place else {}
            place = place[step]
        else:
            place = _item(place, step, where)
    if isinstance(place, dict):
        place[last] = value
    else:
        _item(place, last, where)
        place[int(last)] = value


def _item(place: Any, step: str, where: str) -> Any:
    if isinstance(place, list) and step.isdigit() and int(step) < len(place):
        return place[int(step)]
    raise RecipeError(f"there is no {step} to set here", where=where)
