"""`edgetune plan`: estimate what a training needs, without downloading weights."""

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
        typer.Option("--device-memory", metavar="SIZE", help="Memory limit, such as 16GB. (default: this machine's)"),
    ] = None,
    device: Annotated[
        Literal["cpu", "gpu"] | None,
        typer.Option("--device", help="Training device. (default: gpu with --device-memory or if there is one)"),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", help="Number of training processes, one per GPU.")
    ] = 1,
    flops: Annotated[
        str | None,
        typer.Option(
            "--flops", metavar="RATE", help="Device speed in FLOP/s, such as 312T, or a GPU's name, such as a100."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Estimate parameters, memory, disk and time of a recipe without its weights, and suggest how to make it fit."""
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
