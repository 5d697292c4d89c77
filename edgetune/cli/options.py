"""Options that several commands share, so that they mean the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]
BaseOption = Annotated[
    str | None, typer.Option("--base", metavar="MODEL", help="Base model, instead of the one that SOURCE records.")
]
SOURCE_HELP = "A run directory, a model (folder, hub id, .gguf file) or any PEFT adapter folder."
