"""A GGUF of the Llama family in Hugging Face's layout, without Transformers: settings, names and order of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from edgetune.errors import ModelError
from edgetune.models.gguf_file import GgufFile

if TYPE_CHECKING:
    import numpy as np

_REQUIRED = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_DEFAULT_ROPE_BASE = 10000.0
"""llama.cpp's, for files without one."""

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEADS = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
"""Tensors whose rows llama.cpp reorders -> the setting with the number of their heads."""


def llama_settings(file: GgufFile) -> dict[str, Any]:
    """The settings of Transformers' LlamaConfig. Raises ModelError for a missing key."""
    settings: dict[str, Any] = {}
    for key, name in _REQUIRED.items():
        if f"llama.{key}" not in file.metadata:
            raise ModelError(f"has no key llama.{key}", where=file.path, remedy="download or export it again")
        settings[name] = file.metadata[f"llama.{key}"]
    say = file.metadata.get
    return {
        **settings,
        "num_key_value_heads": say("llama.attention.head_count_kv", settings["num_attention_heads"]),
        "head_dim": say("llama.rope.dimension_count") or say("llama.attention.key_length"),
        "rope_theta": say("llama.rope.freq_base", _DEFAULT_ROPE_BASE),
        "vocab_size": say("llama.vocab_size") or len(file.array("tokenizer.ggml.tokens") or ()),
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "bos_token_id": say("tokenizer.ggml.bos_token_id"),
        "eos_token_id": say("tokenizer.ggml.eos_token_id"),
        "pad_token_id": say("tokenizer.ggml.padding_token_id"),
    }


def llama_names(file: GgufFile, settings: Mapping[str, Any]) -> dict[str, str]:
    """Hugging Face's name -> the file's, in the file's order.

    Raises ModelError for a tensor that is unknown, and for one that is missing.
    """
    found = {}
    for stored in file.tensors:
        module, _, parameter = stored.rpartition(".")
        *block, last = module.split(".")
        known = _BLOCK.get(last) if block[:1] == ["blk"] and len(block) == 2 else _TOP.get(module)
        if known is None or parameter not in ("weight", "bias"):
            raise ModelError(f"the Llama family has no tensor {stored}", where=file.path)
        found[f"model.layers.{block[1]}.{known}.{parameter}" if block else f"{known}.{parameter}"] = stored
    blocks = range(settings["num_hidden_layers"])
    needed = [f"model.layers.{block}.{module}.weight" for block in blocks for module in _BLOCK.values()]
    lost = [name for name in ("model.embed_tokens.weight", *needed, "model.norm.weight") if name not in found]
    if lost:
        raise ModelError(f"lacks the tensor {lost[0]}", where=file.path, remedy="download or export it again")
    return found


def llama_order(settings: Mapping[str, Any], stored: str) -> Callable[[np.ndarray], np.ndarray] | None:
    """Puts the rows of a tensor of the file into Hugging Face's order; None where the order is the same."""
    key = _HEADS.get(stored.split(".")[-2])
    return None if key is None else partial(_halves_from_pairs, heads=int(settings[key]))


def _halves_from_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows 2i and 2i + 1 of a head, which llama.cpp rotates together, become i and i + d/2."""
    import numpy as np

    pairs = weight.reshape(heads, -1, 2, *weight.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)
