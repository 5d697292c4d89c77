"""A GGUF file's metadata -> Transformers' configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetune.errors import ModelError
from edgetune.models.gguf_file import GgufFile

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_LLAMA_REQUIRED = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_LLAMA_DEFAULT_ROPE_BASE = 10000.0
"""llama.cpp's, for files that do not say."""


def gguf_config(file: GgufFile) -> PretrainedConfig:
    """The model's configuration.

    Transformers reads most architectures, by walking the whole vocabulary, which takes seconds; the Llama family is
    read here. Raises ModelError for rope scaling, which Transformers does not read from a GGUF, and for a missing key.
    """
    architecture = file.metadata.get("general.architecture")
    _refuse_rope_scaling(file, str(architecture))
    if architecture == "llama":
        return _llama(file)
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(file.path.parent, gguf_file=file.path.name)


def _llama(file: GgufFile) -> PretrainedConfig:
    from transformers import LlamaConfig

    settings: dict[str, Any] = {}
    for key, name in _LLAMA_REQUIRED.items():
        if f"llama.{key}" not in file.metadata:
            raise ModelError(f"does not say its llama.{key}", where=file.path, remedy="download or export it again")
        settings[name] = file.metadata[f"llama.{key}"]
    say = file.metadata.get
    return LlamaConfig(
        **settings,
        num_key_value_heads=say("llama.attention.head_count_kv", settings["num_attention_heads"]),
        head_dim=say("llama.rope.dimension_count") or say("llama.attention.key_length"),
        rope_theta=say("llama.rope.freq_base", _LLAMA_DEFAULT_ROPE_BASE),
        vocab_size=say("llama.vocab_size") or len(file.array("tokenizer.ggml.tokens") or ()),
        attention_bias="blk.0.attn_q.bias" in file.tensors,
        mlp_bias="blk.0.ffn_up.bias" in file.tensors,
        tie_word_embeddings="output.weight" not in file.tensors,
        bos_token_id=say("tokenizer.ggml.bos_token_id"),
        eos_token_id=say("tokenizer.ggml.eos_token_id"),
        pad_token_id=say("tokenizer.ggml.padding_token_id"),
    )


def _refuse_rope_scaling(file: GgufFile, architecture: str) -> None:
    by_key = file.metadata.get(f"{architecture}.rope.scaling.type", "none") != "none"
    if by_key or any(name.startswith("rope_") for name in file.tensors):
        raise ModelError(
            "this GGUF stretches its context by rope scaling, which Transformers does not read from a GGUF",
            where=file.path,
            remedy="use the Hugging Face model that it was made from (base.model in a recipe, --base for an adapter)",
        )
