"""A recipe argument and its overrides -> Recipe; and back to YAML for the run directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from edgetune import assets
from edgetune.errors import RecipeError
from edgetune.recipe.schema import Recipe
from edgetune.recipe.yaml_input import nearest, parse_yaml, read_mapping, validate


def shipped_recipes() -> dict[str, Path]:
    """The recipes that ship with edgetune, by name."""
    return assets.shipped_files("recipes", "*.yaml")


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


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply overrides (`train.learning_rate=1e-4`), and make local paths absolute.

    Raises RecipeError naming the file and field.
    """
    path = find_recipe(name)
    values = read_mapping(path)
    for override in overrides:
        _apply_override(values, override)
    recipe = validate(Recipe, values, where=f"{path} with -s {' -s '.join(overrides)}" if overrides else str(path))
    return _with_absolute_paths(recipe, path.resolve().parent)


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out. Loading it gives the same recipe again."""
    values = recipe.model_dump(mode="json")
    body = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)
    return f"# {recipe.name}, resolved: every default is written out\n{body}"


def _apply_override(values: dict[str, Any], override: str) -> None:
    """Set one dotted key in place. The value is YAML; list items are addressed by number (data.train.0.split=…)."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError("an override reads key=value", where=f"-s {override}", remedy="try -s train.epochs=2")
    *parents, last = key.split(".")
    place: Any = values
    for step in parents:
        if isinstance(place, dict):
            if not isinstance(place.get(step), dict | list):
                place[step] = {"model": place["base"]} if step == "base" and "base" in place else {}
            place = place[step]
        else:
            place = _item(place, step, override)
    value = parse_yaml(text, where=f"-s {override}")
    if isinstance(place, dict):
        place[last] = value
    else:
        _item(place, last, override)
        place[int(last)] = value


def _item(place: Any, step: str, override: str) -> Any:
    if isinstance(place, list) and step.isdigit() and int(step) < len(place):
        return place[int(step)]
    raise RecipeError(f"there is no {step} to set here", where=f"-s {override}")


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """Local files are relative to the recipe; in a run directory they must be found from anywhere."""
    data = recipe.data.model_copy(
        update={
            "train": [source.found_from(folder) for source in recipe.data.train],
            "eval": [source.found_from(folder) for source in recipe.data.eval],
            "template": str((folder / recipe.data.template).resolve())
            if recipe.data.template not in ("chat", "alpaca")
            else recipe.data.template,
        }
    )
    model = recipe.base.model
    local = (folder / model).resolve()
    if not model.startswith("package:") and (model.startswith((".", "/")) or model.endswith(".gguf")):
        model = str(local)
    return recipe.model_copy(update={"data": data, "base": recipe.base.model_copy(update={"model": model})})
