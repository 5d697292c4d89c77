"""`edgetune.merge`: a base and its adapter become one Hugging Face model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.api.public import PathLike, public

if TYPE_CHECKING:
    from edgetune.weights.merge import MergeResult


@public
def merge(source: PathLike, *, out: PathLike, base: PathLike | None = None, force: bool = False) -> MergeResult:
    """Fold an adapter into its base, into the folder `out`: safetensors, tokenizer and chat template for Transformers.

    `source` is a Run, a run directory, a model (folder, hub id, .gguf file) or any PEFT adapter folder; `base` stands
    in for the base model that it records. Raises AdapterError, ModelError, OutputError, NumericalError.
    """
    from edgetune.weights.merge import merge as write_merged
    from edgetune.weights.source import resolve_source

    return write_merged(resolve_source(source, base=base), Path(out), force=force)
