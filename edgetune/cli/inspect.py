"""`edgetune inspect`: show the contents of a GGUF file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import edgetune
from edgetune import console
from edgetune.cli.options import JsonOption


def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A GGUF file: a model, a LoRA adapter or an importance matrix.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Compare every tensor with the checksum that export wrote.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show a GGUF file's tensor types, sizes, vocabulary, chat template, metadata and origin.

    Exit code 1 when --check finds a tensor whose bytes have changed since export.
    """
    console.configure(json_mode=json)
    found = edgetune.inspect(file, check=check)
    from edgetune.gguf.verification.proof_table import checksum_line, render_inspection

    values = asdict(found)
    if not check:
        del values["checksums"]
    console.document(values)
    console.result(render_inspection(found))
    if found.checksums is not None and not found.checksums.rewritten:
        console.result(f"checksums: {checksum_line(found.checksums.same)}")
