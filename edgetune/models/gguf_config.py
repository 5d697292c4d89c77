"""A GGUF file's metadata -> Transformers' configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.errors import ModelError
from edgetune.models.gguf_file import GgufFile
from edgetune.models.gguf_llama import llama_settings

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def gguf_config(file: GgufFile) -> PretrainedConfig:
    """The model's configuration.

    Transformers reads most architectures, by walking the whole vocabulary, which takes seconds; the Llama family is
    read here. Raises ModelError for rope scaling, which Transformers does not read from a GGUF, and for a missing key.
    """
    architecture = file.metadata.get("general.architecture")
    refuse_rope_scaling(file, str(architecture))
    if architecture == "llama":
        from transformers import LlamaConfig

        return LlamaConfig(**llama_settings(file))
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(file.path.parent, gguf_file=file.path.name)


def refuse_rope_scaling(file: GgufFile, architecture: str) -> None:
    """Raise ModelError for a GGUF that stretches its context."""
    by_key = file.metadata.get(f"{architecture}.rope.scaling.type", "none") != "none"
    if by_key or any(name.startswith("rope_") for name in file.tensors):
        raise ModelError(
            "this GGUF stretches its context by rope scaling, which Transformers does not read from a GGUF",
            where=file.path,
            remedy="use the Hugging Face model that it was made from (base.model in a recipe, --base for an adapter)",
        )
