"""`edgetune recipes`: what ships, and what one of them says."""

from __future__ import annotations

from typing import Annotated

import typer

from edgetune import console
from edgetune.cli.options import JsonOption


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print this recipe instead of the list.")] = None,
    json: JsonOption = False,
) -> None:
    """List the recipes that ship with edgetune, or print one to start from."""
    console.configure(json_mode=json)
    from rich.text import Text

    from edgetune.recipe.load import find_recipe, load_recipe, shipped_recipes

    if name is not None:
        text = find_recipe(name).read_text(encoding="utf-8")
        console.verbatim(text, end="")
        console.document({"name": name, "yaml": text, "resolved": load_recipe(name).model_dump(mode="json")})
        return
    loaded = [load_recipe(shipped) for shipped in shipped_recipes()]
    for recipe in loaded:
        quantized = "" if recipe.base.quantize == "none" else f" on {recipe.base.quantize}"
        facts = f"{recipe.task}, {recipe.method.type}{quantized}, {recipe.base.model}"
        console.result(Text.assemble((recipe.name, "bold"), f"\n  {recipe.description}\n  ", (facts, "dim")))
    console.document([recipe.model_dump(mode="json", include={"name", "task", "description"}) for recipe in loaded])
