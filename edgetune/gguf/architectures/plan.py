"""What an architecture hands to the writer: the tensors of the file and how each is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.errors import ModelError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class OutputTensor:
    """One tensor of the GGUF file: its name there, its shape (rows first), and how it is made.

    `source` is the Hugging Face tensor that `transform` turns into it; a tensor without a source is `computed`.
    `matrix` tells what presets apply to: norms, biases and computed tensors stay float32.
    """

    name: str
    shape: tuple[int, ...]
    matrix: bool
    source: str | None = None
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None
    computed: torch.Tensor | None = None


def gguf_names(architecture: str, layers: int, tensors: Iterable[str]) -> dict[str, str]:
    """Hugging Face's tensor names -> GGUF's, by the gguf package's table. Raises ModelError for one without a place."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture)
    table = get_tensor_name_map(arch, layers)
    names = {}
    for tensor in tensors:
        name = table.get_name(tensor, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ModelError(f"the GGUF architecture {architecture} has no place for the tensor {tensor}")
        names[tensor] = name
    return names
