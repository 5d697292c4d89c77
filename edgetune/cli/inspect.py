"""`edgetune inspect`: what a GGUF file holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgetune import console
from edgetune.cli.options import JsonOption


def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A GGUF file: a model, a LoRA adapter or an importance matrix.")
    ],
    json: JsonOption = False,
) -> None:
    """Show a GGUF file's tensor types, sizes, vocabulary, chat template, metadata and where it comes from."""
    console.configure(json_mode=json)
    from edgetune.gguf.verification.inspection import inspect_file
    from edgetune.gguf.verification.terminal import render_inspection

    found = inspect_file(file)
    console.document(asdict(found))
    console.result(render_inspection(found))
