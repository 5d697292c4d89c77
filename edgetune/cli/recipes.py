"""`edgetune recipes`: list the shipped recipes, or print one."""

from __future__ import annotations

from typing import Annotated

import typer

import edgetune
from edgetune import console
from edgetune.cli.options import JsonOption


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print this recipe instead of the list.")] = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="With NAME: print every value, including inherited ones and defaults.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the shipped recipes by study, or print one."""
    console.configure(json_mode=json)
    from edgetune.errors import UsageError
    from edgetune.recipe.load import find_recipe

    if name is not None:
        recipe = edgetune.load_recipe(name)
        text = find_recipe(name).read_text(encoding="utf-8")
        console.verbatim(edgetune.dump_recipe(recipe) if resolved else text, end="")
        console.document({"name": name, "yaml": text, "resolved": recipe.model_dump(mode="json")})
    elif resolved:
        raise UsageError("--resolved needs the name of a recipe", remedy="try edgetune recipes demo --resolved")
    else:
        _list()


def _list() -> None:
    from rich.text import Text

    from edgetune.recipe.load import study_of

    shipped = edgetune.shipped_recipes()
    by_study = sorted(shipped, key=lambda name: (study_of(shipped[name]) or "", name))
    listed: list[dict[str, object]] = []
    study = None
    for recipe in map(edgetune.load_recipe, by_study):
        if study_of(shipped[recipe.name]) != study:
            study = study_of(shipped[recipe.name])
            console.result(Text.assemble("\nStudy ", (str(study), "bold underline"), " (docs/studies.md)\n"))
        quantized = "" if recipe.base.quantize == "none" else f" on {recipe.base.quantize}"
        facts = f"{recipe.task}, {recipe.method.type}{quantized}, {recipe.base.model}"
        console.result(Text.assemble((recipe.name, "bold"), "  ", (facts, "dim"), f"\n  {recipe.description}"))
        listed.append(recipe.model_dump(mode="json", include={"name", "task", "description"}) | {"study": study})
    console.document(listed)
