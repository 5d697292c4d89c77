"""The common part of decoder families: token embedding, equal blocks of attention and feed-forward, RMS norms.

A family is a subclass with its differences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune import events
from edgetune.errors import ModelError
from edgetune.gguf.architectures.plan import OutputTensor, gguf_names
from edgetune.models.config import ModelConfig
from edgetune.weights.base import TensorInfo

if TYPE_CHECKING:
    from gguf import GGUFWriter

TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
"""Modules outside the blocks -> their names in GGUF."""

NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
SANDWICH_NORMS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
QUERY_KEY_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
ATTENTION = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
}
FEED_FORWARD = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
"""Modules of a block -> their names in GGUF."""

_BLOCK = re.compile(r"model\.layers\.(\d+)\.")


class Decoder:
    """A family of decoders. Subclasses set the fields and override the last methods."""

    gguf_name: ClassVar[str]
    """llama.cpp's name (general.architecture)."""

    defaults: ClassVar[Mapping[str, Any]]
    """The defaults of the family's Transformers configuration class."""

    block: ClassVar[Mapping[str, str]] = {**NORMS, **ATTENTION, **FEED_FORWARD}
    """Modules of a block -> their names in GGUF."""

    biases: ClassVar[tuple[str, ...]] = ()
    """Modules of a block that may have a bias in llama.cpp."""

    activation: ClassVar[tuple[str, str]] = ("hidden_act", "silu")
    """The configuration's field for the activation, and the one that llama.cpp computes."""

    def describe(self, config: ModelConfig, writer: GGUFWriter) -> None:
        """Write the hyperparameters. Raises ModelError for a configuration that llama.cpp cannot compute."""
        config = self._complete(config)
        self.check(config)
        writer.add_context_length(config.require("max_position_embeddings"))
        writer.add_embedding_length(config.require("hidden_size"))
        writer.add_block_count(config.require("num_hidden_layers"))
        writer.add_feed_forward_length(config.require("intermediate_size"))
        writer.add_head_count(config.require("num_attention_heads"))
        writer.add_head_count_kv(config.require("num_key_value_heads"))
        writer.add_layer_norm_rms_eps(config.require("rms_norm_eps"))
        self.describe_family(config, writer)

    def plan(self, config: ModelConfig, tensors: Mapping[str, TensorInfo]) -> list[OutputTensor]:
        """The file's tensors in order. Raises ModelError for a tensor that is missing or has no place."""
        config = self._complete(config)
        self.check(config)
        names = gguf_names(tensors, top=TOP, block=self.block)
        self._check_tensors(config, tensors)
        self.warn(config)
        return [
            *self.computed(config),
            *(self.place(names[info.name], info, config) for info in tensors.values()),
        ]

    def describe_family(self, config: ModelConfig, writer: GGUFWriter) -> None:
        """Write the hyperparameters that only some families have. Raises ModelError as `describe`."""
        raise NotImplementedError

    def check(self, config: ModelConfig) -> None:
        """Raise ModelError naming the field that llama.cpp cannot compute with in this family."""
        field, name = self.activation
        require_setting(config, field, name, *(["swish"] if name == "silu" else []))

    def warn(self, config: ModelConfig) -> None:
        """Warn about what llama.cpp computes differently, where the model stays usable."""

    def computed(self, config: ModelConfig) -> Iterable[OutputTensor]:
        """Tensors that are computed from the configuration."""
        return ()

    def place(self, name: str, info: TensorInfo, config: ModelConfig) -> OutputTensor:
        """How the tensor `name` is computed from the model's."""
        return OutputTensor(name, info.shape, source=info.name)

    def _complete(self, config: ModelConfig) -> ModelConfig:
        config = config.replace(**{key: self.defaults[key] for key in self.defaults.keys() - config.settings.keys()})
        if config.get("num_key_value_heads") is None:
            return config.replace(num_key_value_heads=config.require("num_attention_heads"))
        return config

    def _check_tensors(self, config: ModelConfig, tensors: Mapping[str, TensorInfo]) -> None:
        blocks = int(config.require("num_hidden_layers"))
        expected = {f"{module}.weight" for module in TOP.keys() - {"lm_head"}}
        expected |= {f"model.layers.{i}.{module}.weight" for i in range(blocks) for module in self.block}
        require_tensors(expected, tensors, config)
        for name, info in tensors.items():
            block = _BLOCK.match(name)
            if block is not None and int(block[1]) >= blocks:
                raise ModelError(f"num_hidden_layers is {blocks}, but the weights have {name}", where=config.where)
            if name.endswith(".bias") and not name.removesuffix(".bias").endswith(self.biases):
                raise ModelError(
                    f"llama.cpp does not support the bias {name} in this architecture",
                    where=config.where,
                    remedy="such a model cannot be run by llama.cpp",
                )
            _check_rows(name, info.shape[0], config)


_HEADS = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads", "v_proj": "num_key_value_heads"}


def _check_rows(name: str, rows: int, config: ModelConfig) -> None:
    """Raise ModelError where a tensor's rows contradict the configuration."""
    module = name.split(".")[-2]
    if module in ("embed_tokens", "lm_head"):
        said, expected = "vocab_size is", int(config.require("vocab_size"))
    elif module in _HEADS:
        said = f"{_HEADS[module]} times the width of a head is"
        expected = int(config.require(_HEADS[module])) * config.head_size
    else:
        return
    if rows != expected:
        raise ModelError(
            f"{name} has {rows} rows, and {said} {expected}",
            where=config.where,
            remedy="config.json and weights belong to different models",
        )


def describe_heads(config: ModelConfig, writer: GGUFWriter) -> None:
    """Write the width of a head where the configuration has it; llama.cpp's default is hidden_size / heads."""
    if config.get("head_dim") is not None:
        writer.add_key_length(config.require("head_dim"))
        writer.add_value_length(config.require("head_dim"))


def require_tensors(expected: Set[str], tensors: Mapping[str, TensorInfo], config: ModelConfig) -> None:
    """Raise ModelError unless all `expected` names are among `tensors`."""
    lost = sorted(expected - tensors.keys())
    if lost:
        raise ModelError(f"lacks the tensor {lost[0]}", where=config.where, remedy="download the model again")


def require_setting(config: ModelConfig, field: str, *allowed: Any) -> None:
    """Raise ModelError unless the value of `field` is one of `allowed`, which llama.cpp supports."""
    value = config.settings.get(field)
    if value not in allowed:
        raise ModelError(
            f"{field} is {value}, and llama.cpp computes this family with {' or '.join(map(str, allowed))} only",
            where=config.where,
            remedy="such a model cannot be run by llama.cpp",
        )


def require_plain_heads(config: ModelConfig) -> None:
    """Raise ModelError unless a head has the width hidden_size / num_attention_heads, the only one in this family."""
    require_setting(config, "head_dim", None, config.require("hidden_size") // config.require("num_attention_heads"))


def warn_of_full_attention(config: ModelConfig, window: int | None) -> None:
    """Warn where `window`, the number of tokens that a layer was trained to attend to, is shorter than the context.

    llama.cpp computes full attention in these families.
    """
    if window is not None and window < config.require("max_position_embeddings"):
        events.warn(
            f"{config.where} was trained with a sliding window of {window} tokens, which llama.cpp does not compute in"
            " this family: with longer texts its answers differ from the trained model's"
        )
