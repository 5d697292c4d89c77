"""T5 and FLAN-T5: an encoder and a decoder that attends to it, with relative positions and norms without bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune import events
from edgetune.errors import ModelError
from edgetune.gguf.architectures.decoder import require_setting, require_tensors
from edgetune.gguf.architectures.plan import OutputTensor, gguf_names
from edgetune.models.config import ModelConfig
from edgetune.weights.base import TensorInfo

if TYPE_CHECKING:
    from gguf import GGUFWriter

_DEFAULTS: Mapping[str, Any] = {
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "n_positions": 512,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "decoder_start_token_id": 0,
}

_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""The same tensor; a checkpoint has it under one or several of these names."""

_ATTENTION = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_o", "relative_attention_bias": "attn_rel_b"}
_FEED_FORWARD = {"wi": "ffn_up", "wi_0": "ffn_gate", "wi_1": "ffn_up", "wo": "ffn_down"}


def _block(cross: int | None, feed_forward: int) -> dict[str, str]:
    """The modules of a block, whose halves are numbered."""
    modules = {f"layer.0.SelfAttention.{module}": name for module, name in _ATTENTION.items()}
    modules["layer.0.layer_norm"] = "attn_norm"
    if cross is not None:
        modules |= {f"layer.{cross}.EncDecAttention.{module}": f"cross_{name}" for module, name in _ATTENTION.items()}
        modules[f"layer.{cross}.layer_norm"] = "cross_attn_norm"
    modules |= {f"layer.{feed_forward}.DenseReluDense.{module}": name for module, name in _FEED_FORWARD.items()}
    modules[f"layer.{feed_forward}.layer_norm"] = "ffn_norm"
    return modules


_STACKS = {"encoder": ("enc.", _block(None, 1)), "decoder": ("dec.", _block(1, 2))}


class T5Encoder:
    """https://arxiv.org/abs/1910.10683, the encoder alone."""

    gguf_name = "t5encoder"
    stacks: ClassVar[tuple[str, ...]] = ("encoder",)

    def describe(self, config: ModelConfig, writer: GGUFWriter) -> None:
        """Write the hyperparameters. Raises ModelError for a configuration that llama.cpp cannot compute."""
        config = _complete(config)
        writer.add_context_length(config.require("n_positions"))
        writer.add_embedding_length(config.require("d_model"))
        writer.add_feed_forward_length(config.require("d_ff"))
        writer.add_block_count(config.require("num_layers"))
        writer.add_head_count(config.require("num_heads"))
        writer.add_key_length(config.require("d_kv"))
        writer.add_value_length(config.require("d_kv"))
        # llama.cpp reads the second; its converter writes both.
        writer.add_layer_norm_eps(config.require("layer_norm_epsilon"))
        writer.add_relative_attn_buckets_count(config.require("relative_attention_num_buckets"))
        writer.add_layer_norm_rms_eps(config.require("layer_norm_epsilon"))

    def plan(self, config: ModelConfig, tensors: Mapping[str, TensorInfo]) -> list[OutputTensor]:
        """The file's tensors in order. Raises ModelError for a tensor that is missing or has no place."""
        config = _complete(config)
        embedding = next((name for name in _EMBEDDINGS if name in tensors), _EMBEDDINGS[0])
        require_tensors({embedding}, tensors, config)
        wanted = [name for name in tensors if name == embedding or name not in _EMBEDDINGS]
        names = self._names(wanted)
        self._check_tensors(config, tensors, embedding)
        self.warn(config)
        return [OutputTensor(names[name], tensors[name].shape, source=name) for name in wanted]

    def warn(self, config: ModelConfig) -> None:
        """Warn about what llama.cpp computes differently."""

    def _names(self, tensors: list[str]) -> dict[str, str]:
        top = {name.removesuffix(".weight"): "token_embd" for name in _EMBEDDINGS} | {"lm_head": "output"}
        inside: dict[str, str] = {}
        for stack in self.stacks:
            short, block = _STACKS[stack]
            prefix = f"{stack}.block."
            own = [name for name in tensors if name.startswith(prefix)]
            inside |= {
                name: short + found for name, found in gguf_names(own, top={}, block=block, prefix=prefix).items()
            }
            top[f"{stack}.final_layer_norm"] = f"{short}output_norm"
        outside = [name for name in tensors if name not in inside]
        return inside | gguf_names(outside, top=top, block={}, prefix="\0")

    def _check_tensors(self, config: ModelConfig, tensors: Mapping[str, TensorInfo], embedding: str) -> None:
        if tensors[embedding].shape[0] != config.require("vocab_size"):
            raise ModelError(
                f"the embedding has {tensors[embedding].shape[0]} rows, and config.json has vocab_size "
                f"{config.require('vocab_size')}",
                where=config.where,
            )
        gated = config.require("feed_forward_proj") == "gated-gelu"
        absent = {"wi"} if gated else {"wi_0", "wi_1"}
        for stack in self.stacks:
            layers = config.require("num_layers")
            if stack == "decoder":
                layers = config.get("num_decoder_layers", layers)
            expected = {f"{stack}.final_layer_norm.weight"}
            for layer in range(layers):
                for module in _STACKS[stack][1]:
                    own_name = module.rsplit(".", 1)[1]
                    if own_name not in absent and (
                        own_name != "relative_attention_bias" or _has_positions(module, layer)
                    ):
                        expected.add(f"{stack}.block.{layer}.{module}.weight")
            require_tensors(expected, tensors, config)
            if f"{stack}.block.{layers}.layer.0.layer_norm.weight" in tensors:
                raise ModelError(f"has more {stack} blocks than the {layers} of config.json", where=config.where)


class T5(T5Encoder):
    """https://arxiv.org/abs/1910.10683; FLAN-T5 (https://arxiv.org/abs/2210.11416) gates the feed-forward half."""

    gguf_name = "t5"
    stacks = ("encoder", "decoder")

    def describe(self, config: ModelConfig, writer: GGUFWriter) -> None:
        super().describe(config, writer)
        config = _complete(config)
        writer.add_decoder_block_count(config.get("num_decoder_layers", config.require("num_layers")))
        writer.add_decoder_start_token_id(config.require("decoder_start_token_id"))

    def warn(self, config: ModelConfig) -> None:
        scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
        if scaled:
            events.warn(
                f"{config.where}: llama.cpp does not scale T5's output as the model does: the most likely token is the "
                "same, but sampled text is less varied"
            )


def _complete(config: ModelConfig) -> ModelConfig:
    """`config` with the defaults of the Transformers class. Raises ModelError for what llama.cpp cannot compute."""
    config = config.replace(**{key: value for key, value in _DEFAULTS.items() if config.get(key) is None})
    require_setting(config, "feed_forward_proj", "relu", "gated-gelu")
    require_setting(config, "relative_attention_max_distance", 128)
    return config


def _has_positions(module: str, layer: int) -> bool:
    """The first block's self-attention has the relative positions of all blocks."""
    return layer == 0 and "SelfAttention" in module
