"""`edgetune merge`: write a base and its adapter as one Hugging Face model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetune
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
    merged = edgetune.merge(source, out=out, base=base, force=force)
    console.document(merged.document())
    next_step = "" if merged.scores_labels else f"\n\nnext: edgetune export {out}"
    console.result(
        f"{merged.tensors} tensors, {merged.folded_modules} modules changed by the adapter, "
        f"{merged.bytes / 1e6:.0f} MB in {merged.seconds:.0f} s\n"
        f"written to {out}{next_step}"
    )
