"""Models of every family with random weights: the real layers in miniature, as Transformers builds and saves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOCABULARY = 512
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.01 * i for i in range(32)],
    "long_factor": [1.0 + 1.3 * i for i in range(32)],
}


@dataclass(frozen=True)
class TinyModel:
    """A Transformers model class and what its configuration says beside the common small shape."""

    name: str
    model_class: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def config(self) -> Any:
        """The configuration. A setting None takes the common shape's away."""
        import transformers

        settings = {key: value for key, value in {**_SHAPE, **self.settings}.items() if value is not None}
        return getattr(transformers, self.model_class).config_class(**settings)

    def save(self, folder: Path, dtype: str = "bfloat16") -> Path:
        """Write config.json and model.safetensors, every weight random (norms around 1), without a tokenizer."""
        import torch
        import transformers

        torch.manual_seed(0)
        model = getattr(transformers, self.model_class)(self.config())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        return folder


TINY_DECODERS = (
    TinyModel("llama-2", "LlamaForCausalLM", {"num_key_value_heads": 4}),
    TinyModel("llama-3.2", "LlamaForCausalLM", {"tie_word_embeddings": True, "rope_parameters": _LLAMA3_ROPE}),
    TinyModel(
        "llama-3.1-wide-heads",
        "LlamaForCausalLM",
        {"head_dim": 128, "rope_parameters": {**_LLAMA3_ROPE, "factor": 8.0}},
    ),
    TinyModel(
        "llama-linear",
        "LlamaForCausalLM",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    ),
    TinyModel("llama-biased", "LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    TinyModel(
        "llama-narrow",
        "LlamaForCausalLM",
        {"hidden_size": 192, "intermediate_size": 352, "num_attention_heads": 3, "num_key_value_heads": 1},
    ),
    TinyModel("mistral", "MistralForCausalLM", {"head_dim": 32, "sliding_window": None}),
    TinyModel("qwen2", "Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    TinyModel(
        "qwen2-yarn",
        "Qwen2ForCausalLM",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1000000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
                "beta_fast": 32.0,
            }
        },
    ),
    TinyModel("qwen3", "Qwen3ForCausalLM", {"head_dim": 128, "tie_word_embeddings": True}),
    TinyModel("gemma-2", "Gemma2ForCausalLM", {"head_dim": 128, "query_pre_attn_scalar": 128}),
    TinyModel("gemma-3", "Gemma3ForCausalLM", {"num_key_value_heads": 1, "num_hidden_layers": 7, "sliding_window": 64}),
    TinyModel(
        "gemma-3-linear",
        "Gemma3ForCausalLM",
        {
            "tie_word_embeddings": False,
            "final_logit_softcapping": 30.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
    ),
    TinyModel("phi-3", "Phi3ForCausalLM", {"sliding_window": 2047}),
    TinyModel(
        "phi-3-long",
        "Phi3ForCausalLM",
        {
            "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096,
            "rope_parameters": _LONGROPE,
        },
    ),
    TinyModel(
        "phi-4-mini",
        "Phi3ForCausalLM",
        {
            "tie_word_embeddings": True,
            "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096,
            "rope_parameters": {
                **_LONGROPE,
                "partial_rotary_factor": 0.75,
                "short_factor": _LONGROPE["short_factor"][:24],
                "long_factor": _LONGROPE["long_factor"][:24],
            },
        },
    ),
    TinyModel("smollm3", "SmolLM3ForCausalLM", {"num_hidden_layers": 5, "tie_word_embeddings": True}),
    TinyModel(
        "granite",
        "GraniteForCausalLM",
        {
            "embedding_multiplier": 12.0,
            "logits_scaling": 8.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.015625,
            "tie_word_embeddings": True,
        },
    ),
)
"""Small enough for every test; rows are whole blocks of 256 for the K-quants but in llama-narrow."""
