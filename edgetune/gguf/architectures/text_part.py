"""Models that also read images: only their text model is written, which has its own family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.errors import ModelError
from edgetune.gguf.architectures.decoder import Decoder
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.models.config import ModelConfig
from edgetune.models.families import TEXT_PREFIX
from edgetune.weights.base import TensorInfo

if TYPE_CHECKING:
    from gguf import GGUFWriter

_HEAD = "lm_head."


class TextPart:
    """The text model of a model with a vision tower. `families` are the possible text models, by model_type."""

    def __init__(self, families: Mapping[str, Decoder]) -> None:
        self._families = families

    @property
    def gguf_name(self) -> str:
        """llama.cpp's name of the text model's architecture."""
        return next(iter(self._families.values())).gguf_name

    def describe(self, config: ModelConfig, writer: GGUFWriter) -> None:
        """Write the text model's hyperparameters. Raises ModelError for one that llama.cpp cannot compute."""
        self._family(config).describe(config.text, writer)

    def plan(self, config: ModelConfig, tensors: Mapping[str, TensorInfo]) -> list[OutputTensor]:
        """The text model's tensors in order. Raises ModelError for a tensor that is missing or has no place."""
        own = {name: _short(name) for name in tensors if name.startswith((TEXT_PREFIX, _HEAD))}
        left = len(tensors) - len(own)
        if left:
            events.note(f"{left} tensors of the vision part are left out; the file contains only the text model")
        text = {short: replace(tensors[name], name=short) for name, short in own.items()}
        held = {short: name for name, short in own.items()}
        planned = self._family(config).plan(config.text, text)
        return [tensor if tensor.source is None else replace(tensor, source=held[tensor.source]) for tensor in planned]

    def _family(self, config: ModelConfig) -> Decoder:
        kind = config.text.get("model_type", next(iter(self._families)))
        if kind not in self._families:
            raise ModelError(
                f"its text model is a {kind}, and edgetune writes that of {' or '.join(self._families)} only",
                where=config.where,
                remedy="--converter PATH runs llama.cpp's convert_hf_to_gguf.py where you have it",
            )
        return self._families[kind]


def _short(name: str) -> str:
    """model.language_model.norm.weight -> model.norm.weight"""
    return f"model.{name.removeprefix(TEXT_PREFIX)}" if name.startswith(TEXT_PREFIX) else name
