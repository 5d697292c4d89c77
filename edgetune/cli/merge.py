"""`edgetune merge`: write a base and its adapter as one Hugging Face model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgetune import console
from edgetune.cli.options import SOURCE_HELP, BaseOption, ForceOption, JsonOption


def merge(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder.")],
    base: BaseOption = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Merge an adapter into its base: safetensors, tokenizer and chat template for Transformers."""
    console.configure(json_mode=json)
    from edgetune.weights.merge import merge as write_merged
    from edgetune.weights.source import resolve_source

    report = write_merged(resolve_source(source, base=base), out, force=force)
    console.document(asdict(report))
    next_step = "" if report.scores_labels else f"\n\nnext: edgetune export {out}"
    console.result(
        f"{report.tensors} tensors, {report.folded_modules} modules changed by the adapter, "
        f"{report.bytes / 1e6:.0f} MB in {report.seconds:.0f} s\n"
        f"written to {out}{next_step}"
    )
