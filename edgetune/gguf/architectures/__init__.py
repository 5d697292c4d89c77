"""Model families by their Transformers class. A new family is one file here and one line in ARCHITECTURES."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from edgetune.errors import ModelError
from edgetune.gguf.architectures.llama import Llama
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.weights.base import TensorInfo

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PretrainedConfig


class Architecture(Protocol):
    """What a model family must say about itself."""

    gguf_name: str
    """llama.cpp's name (general.architecture)."""

    def describe(self, config: PretrainedConfig, writer: GGUFWriter) -> None:
        """Write the hyperparameters. Raises ModelError for a configuration that llama.cpp cannot compute."""

    def plan(self, config: PretrainedConfig, tensors: Mapping[str, TensorInfo]) -> list[OutputTensor]:
        """The file's tensors in order. Raises ModelError for a tensor that the family has no place for."""


ARCHITECTURES: dict[str, Architecture] = {"LlamaForCausalLM": Llama()}


def find_architecture(config: Any, *, where: str) -> Architecture:
    """The family of a Transformers configuration. Raises ModelError listing those there are."""
    names = list(config.architectures or [])
    for name in names:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    raise ModelError(
        f"is a {' / '.join(names) or config.model_type}, which edgetune cannot write as GGUF yet",
        where=where,
        remedy=f"the architectures are {', '.join(ARCHITECTURES)}",
    )
