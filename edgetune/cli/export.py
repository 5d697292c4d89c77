"""`edgetune export`: a base and its adapter become one GGUF file for llama.cpp."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgetune import console
from edgetune.cli.options import SOURCE_HELP, BaseOption, ForceOption, JsonOption
from edgetune.gguf.presets import DEFAULT_PRESET, PRESETS, find_preset


def export(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP)],
    quant: Annotated[str, typer.Option("--quant", metavar="PRESET", help=f"{', '.join(PRESETS)}.")] = DEFAULT_PRESET,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The .gguf file to write. (default: NAME-PRESET.gguf)")
    ] = None,
    base: BaseOption = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Write a quantized GGUF that chats, serves and classifies without a GPU, and check it."""
    console.configure(json_mode=json)
    preset = find_preset(quant)
    from edgetune.gguf.write import export as write_gguf
    from edgetune.weights.source import resolve_source

    resolved = resolve_source(source, base=base)
    file = out or Path(f"{resolved.name}-{preset.name}.gguf")
    report = write_gguf(resolved, file, preset=preset.name, force=force)
    console.document(asdict(report))
    types = ", ".join(f"{count} {kind}" for kind, count in report.types.items())
    console.result(
        f"{report.bytes / 1e6:.0f} MB in {sum(report.seconds.values()):.0f} s, tensors: {types}\n"
        f"written to {file} and checked: llama.cpp opens it and gives the tokenizer's ids\n\n"
        f"next: edgetune chat {file}"
    )
