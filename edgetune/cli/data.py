"""`edgetune data check`: a report on a recipe's data."""

from __future__ import annotations

from dataclasses import asdict

import typer

import edgetune
from edgetune import console
from edgetune.cli.options import JsonOption, OverrideOption, RecipeArgument

app = typer.Typer(help="Check a recipe's data.", no_args_is_help=True)


def check(
    recipe: RecipeArgument,
    overrides: OverrideOption = None,
    json: JsonOption = False,
) -> None:
    """Report counts, label balance, lengths, truncation, duplicates, and evaluation rows that leak into training.

    Exit code 1 when an evaluation row is in the training data, exactly or nearly.
    """
    console.configure(json_mode=json)
    loaded = edgetune.load_recipe(recipe, overrides or ())
    report = edgetune.check_data(loaded)
    from edgetune.data.check_table import render_report

    console.result(render_report(report))
    console.document({"recipe": loaded.name, "leaks": report.leaks, **asdict(report)})
    raise typer.Exit(1 if report.leaks else 0)
