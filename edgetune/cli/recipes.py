"""`edgetune recipes`: what ships, and what one of them says."""

from __future__ import annotations

from typing import Annotated

import typer

from edgetune import console
from edgetune.cli.options import JsonOption


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this recipe instead of the list.")] = None,
    json: JsonOption = False,
) -> None:
    """List the recipes that ship with edgetune, or print one to start from."""
    console.configure(json_mode=json)
    from rich.table import Table

    from edgetune.recipe.load import find_recipe, load_recipe, shipped_recipes

    if name is not None:
        text = find_recipe(name).read_text(encoding="utf-8")
        console.verbatim(text, end="")
        console.document({"name": name, "yaml": text, "resolved": load_recipe(name).model_dump(mode="json")})
        return
    loaded = [load_recipe(shipped) for shipped in shipped_recipes()]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("recipe", "task", "method", "base"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what it does")
    for recipe in loaded:
        quantized = f" on {recipe.base.quantize}" if recipe.base.quantize != "none" else ""
        table.add_row(recipe.name, recipe.task, recipe.method.type + quantized, recipe.base.model, recipe.description)
    console.result(table)
    console.document([recipe.model_dump(mode="json", include={"name", "task", "description"}) for recipe in loaded])
