"""DistilBERT: BERT without token types, with other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgetune import events
from edgetune.gguf.architectures.bert import Bert
from edgetune.gguf.architectures.decoder import require_setting
from edgetune.models.config import ModelConfig

_OWN_KEYS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
}
"""DistilBERT's keys in config.json -> BERT's."""


class DistilBert(Bert):
    """https://arxiv.org/abs/1910.01108"""

    prefix = "distilbert."
    blocks = "transformer.layer."
    defaults: ClassVar[Mapping[str, Any]] = {
        **Bert.defaults,
        "num_hidden_layers": 6,
        "type_vocab_size": 1,
    }
    top: ClassVar[Mapping[str, str]] = {
        module: name for module, name in Bert.top.items() if module != "embeddings.token_type_embeddings"
    }
    block: ClassVar[Mapping[str, str]] = {
        "attention.q_lin": "attn_q",
        "attention.k_lin": "attn_k",
        "attention.v_lin": "attn_v",
        "attention.out_lin": "attn_output",
        "sa_layer_norm": "attn_output_norm",
        "ffn.lin1": "ffn_up",
        "ffn.lin2": "ffn_down",
        "output_layer_norm": "layer_output_norm",
    }
    before_head = "pre_classifier"
    pretraining = ("vocab_transform.", "vocab_layer_norm.", "vocab_projector.")

    def complete(self, config: ModelConfig) -> ModelConfig:
        said = {theirs: config.get(own) for own, theirs in _OWN_KEYS.items() if config.get(own) is not None}
        config = super().complete(config.replace(**said))
        require_setting(config, "sinusoidal_pos_embds", None, False)
        return config

    def warn(self, config: ModelConfig) -> None:
        events.warn(
            f"{config.where}: llama.cpp computes a tanh where DistilBERT's classification head has a ReLU: its class "
            "scores differ from the trained model's"
        )
