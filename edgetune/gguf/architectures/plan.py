"""The tensors of a GGUF file, and how each is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.errors import ModelError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class OutputTensor:
    """One tensor of the GGUF file: its name, its shape (rows first), and how it is computed.

    `transform` converts the float32 values of the Hugging Face tensor `source` row by row; a tensor without a source is
    `computed` (float32). A matrix is transformed in blocks of multiples of `rows_together` rows, because a large one is
    never whole in memory; a vector is transformed whole. `always_f32`: llama.cpp's converter writes it in float32 with
    every output type (norms, position embeddings).
    """

    name: str
    shape: tuple[int, ...]
    source: str | None = None
    transform: Callable[[np.ndarray], np.ndarray] | None = None
    rows_together: int = 1
    computed: np.ndarray | None = None
    always_f32: bool = False


def gguf_names(
    tensors: Iterable[str], *, top: Mapping[str, str], block: Mapping[str, str], prefix: str = "model.layers."
) -> dict[str, str]:
    """Hugging Face's tensor names -> GGUF's.

    `top` and `block` map module paths, the latter below `prefix`N.; the parameter's name (weight, bias) is kept.
    Raises ModelError for an unknown tensor.
    """
    names = {}
    for tensor in tensors:
        module, _, parameter = tensor.rpartition(".")
        if module.startswith(prefix):
            number, _, rest = module.removeprefix(prefix).partition(".")
            place = block.get(rest)
            found = None if place is None else f"blk.{number}.{place}"
        else:
            found = top.get(module)
        if found is None or parameter not in ("weight", "bias"):
            raise ModelError(f"llama.cpp has no tensor {tensor} in this architecture")
        names[tensor] = f"{found}.{parameter}"
    return names
