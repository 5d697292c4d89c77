"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]
BaseOption = Annotated[
    str | None,
    typer.Option("--base", metavar="MODEL", help="Use this base model instead of the one recorded in SOURCE."),
]
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name or a YAML file.")]
OverrideOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a value: -s train.learning_rate=1e-4. Repeatable."),
]
SOURCE_HELP = "A run directory, a model (folder, hub id, .gguf file) or any PEFT adapter folder."
