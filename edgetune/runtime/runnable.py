"""A GGUF file that llama.cpp can run here, and what its header says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.errors import ModelError

_NO_VOCABULARY = "no_vocab"
"""tokenizer.ggml.model of a file without a tokenizer; llama.cpp aborts when it is asked to tokenize for it."""


@dataclass(frozen=True)
class RunnableFile:
    """What `probe.check_file` found out: `metadata` are the header's scalars and strings by key."""

    path: Path
    metadata: Mapping[str, Any]
    extra_kernels: bool
    """Whether llama.cpp's extra CPU kernels may be used for it."""

    @property
    def head_size(self) -> int:
        """How many numbers an attention head has; 0 where the file does not say it, or not for all layers alike."""
        heads, width = self._of_architecture("attention.head_count"), self._of_architecture("embedding_length")
        stated = self._of_architecture("attention.key_length")
        if isinstance(stated, int):
            return stated
        return width // heads if isinstance(heads, int) and isinstance(width, int) and heads > 0 else 0

    @property
    def chat_template(self) -> str:
        """The source of the file's chat template. Raises ModelError when it has none."""
        source = self.metadata.get("tokenizer.chat_template")
        if not source:
            raise ModelError(
                "has no chat template, so it cannot chat or classify",
                where=self.path,
                remedy="export it again from a model whose tokenizer has one (a fine-tuned or instruct model)",
            )
        return str(source)

    def require_language_model(self) -> None:
        """Raise ModelError for a model that cannot read and write text."""
        encodes_only = self._of_architecture("attention.causal") is False
        if encodes_only or self.metadata.get("general.architecture") == "t5encoder":
            raise ModelError(
                "is an encoder, which cannot write text", where=self.path, remedy="choose a language model"
            )
        if self.metadata.get("tokenizer.ggml.model", _NO_VOCABULARY) == _NO_VOCABULARY:
            raise ModelError("has no vocabulary, so it cannot read text", where=self.path, remedy="export it again")

    def _of_architecture(self, key: str) -> Any:
        return self.metadata.get(f"{self.metadata.get('general.architecture')}.{key}")
