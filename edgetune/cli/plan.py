"""`edgetune plan`: what a training would need, before anything is downloaded."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

import edgetune
from edgetune import console
from edgetune.cli.options import JsonOption, OverrideOption, RecipeArgument


def plan(
    recipe: RecipeArgument,
    overrides: OverrideOption = None,
    device_memory: Annotated[
        str | None,
        typer.Option("--device-memory", metavar="SIZE", help="Memory to fit into: 16GB. (default: what is at hand)"),
    ] = None,
    device: Annotated[
        Literal["cpu", "gpu"] | None,
        typer.Option("--device", help="What trains. (default: a GPU with --device-memory or where there is one)"),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", help="Processes that train together, one per GPU.")
    ] = 1,
    flops: Annotated[
        str | None,
        typer.Option("--flops", metavar="RATE", help="The device's speed: 312T, or a GPU's name such as a100."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Count what a recipe needs without its weights: parameters, memory, disk, time; and how to make it fit."""
    console.configure(json_mode=json)
    made = edgetune.plan(
        recipe,
        overrides=overrides or (),
        device_memory=device_memory,
        device=device,
        processes=processes,
        flops=flops,
    )
    from edgetune.planning.plan_table import render

    console.document(made.document())
    console.result(render(made))
