"""BERT: bidirectional blocks with a norm after each half, learned positions; for embeddings and classification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune.errors import ModelError
from edgetune.gguf.architectures.decoder import require_setting, require_tensors
from edgetune.gguf.architectures.plan import OutputTensor, gguf_names
from edgetune.models.config import ModelConfig
from edgetune.weights.base import TensorInfo

if TYPE_CHECKING:
    from gguf import GGUFWriter, PoolingType

_HEAD = {"classifier": "cls.output"}
_OLD_PARAMETERS = {".gamma": ".weight", ".beta": ".bias"}
"""The names of a norm's parameters in early checkpoints, from TensorFlow's BERT."""
_ALWAYS_F32 = ("position_embd.weight", "token_types.weight")


class Bert:
    """https://arxiv.org/abs/1810.04805. `classifies`: the model ends in a classification head.

    llama.cpp's converter omits BERT's pooler. A classification head was trained with it, and llama.cpp can compute it,
    so a file for classification has two tensors more than the converter's.
    """

    gguf_name = "bert"
    prefix: ClassVar[str] = "bert."
    """The prefix of all names in a model with a head."""
    blocks: ClassVar[str] = "encoder.layer."
    defaults: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu",
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }
    top: ClassVar[Mapping[str, str]] = {
        "embeddings.word_embeddings": "token_embd",
        "embeddings.position_embeddings": "position_embd",
        "embeddings.token_type_embeddings": "token_types",
        "embeddings.LayerNorm": "token_embd_norm",
    }
    block: ClassVar[Mapping[str, str]] = {
        "attention.self.query": "attn_q",
        "attention.self.key": "attn_k",
        "attention.self.value": "attn_v",
        "attention.output.dense": "attn_output",
        "attention.output.LayerNorm": "attn_output_norm",
        "intermediate.dense": "ffn_up",
        "output.dense": "ffn_down",
        "output.LayerNorm": "layer_output_norm",
    }
    before_head: ClassVar[str] = "pooler.dense"
    """The layer between the first token's output and the classification head."""
    pretraining: ClassVar[tuple[str, ...]] = ("cls.predictions.", "cls.seq_relationship.", "embeddings.position_ids")
    """Prefixes of tensors that only pretraining needs."""

    def __init__(self, *, classifies: bool = False) -> None:
        self.classifies = classifies

    def describe(self, config: ModelConfig, writer: GGUFWriter) -> None:
        """Write the hyperparameters. Raises ModelError for a configuration that llama.cpp cannot compute."""
        config = self.complete(config)
        writer.add_block_count(config.require("num_hidden_layers"))
        writer.add_context_length(config.require("max_position_embeddings"))
        writer.add_embedding_length(config.require("hidden_size"))
        writer.add_feed_forward_length(config.require("intermediate_size"))
        writer.add_head_count(config.require("num_attention_heads"))
        writer.add_layer_norm_eps(config.require("layer_norm_eps"))
        writer.add_causal_attention(False)
        writer.add_token_type_count(config.require("type_vocab_size"))
        pooling = config.get("pooling")
        if pooling is not None:
            writer.add_pooling_type(_pooling_type(pooling, where=config.where))
        labels = self._labels(config)
        if labels:
            writer.add_classifier_output_labels(labels)

    def plan(self, config: ModelConfig, tensors: Mapping[str, TensorInfo]) -> list[OutputTensor]:
        """The file's tensors in order. Raises ModelError for a tensor that is missing or has no place."""
        config = self.complete(config)
        found = dict(self._needed(tensors))
        top = {**self.top, **_HEAD, self.before_head: "cls"} if self.classifies else self.top
        names = gguf_names(found, top=top, block=self.block, prefix=self.blocks)
        self._check_tensors(config, found, top)
        if self.classifies:
            self.warn(config)
        return [
            OutputTensor(names[name], info.shape, source=info.name, always_f32=names[name] in _ALWAYS_F32)
            for name, info in found.items()
        ]

    def complete(self, config: ModelConfig) -> ModelConfig:
        """`config` with the defaults of the Transformers class. Raises ModelError for what llama.cpp cannot compute."""
        config = config.replace(**{key: value for key, value in self.defaults.items() if config.get(key) is None})
        require_setting(config, "hidden_act", "gelu", "gelu_new", "gelu_pytorch_tanh")
        require_setting(config, "position_embedding_type", None, "absolute")
        require_setting(config, "is_decoder", None, False)
        return config

    def warn(self, config: ModelConfig) -> None:
        """Warn about what llama.cpp computes differently in the classification head."""

    def _needed(self, tensors: Mapping[str, TensorInfo]) -> Iterator[tuple[str, TensorInfo]]:
        """The tensors that are written, by their current names in a model without a head."""
        unused = self.pretraining if self.classifies else (*self.pretraining, self.before_head)
        for info in tensors.values():
            name = info.name.removeprefix(self.prefix)
            for old, new in _OLD_PARAMETERS.items():
                name = name.removesuffix(old) + new if name.endswith(old) else name
            if not name.startswith(unused):
                yield name, info

    def _labels(self, config: ModelConfig) -> list[str]:
        """The names of the classes in order; Transformers names two where config.json has none."""
        named = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
        labels = [str(name) for _, name in sorted((int(number), name) for number, name in named.items())]
        return labels if self.classifies or labels != ["LABEL_0", "LABEL_1"] else []

    def _check_tensors(self, config: ModelConfig, tensors: Mapping[str, TensorInfo], top: Mapping[str, str]) -> None:
        layers = range(config.require("num_hidden_layers"))
        modules = [*top, *(f"{self.blocks}{layer}.{module}" for layer in layers for module in self.block)]
        require_tensors({f"{module}.weight" for module in modules}, tensors, config)
        if len([name for name in tensors if name.startswith(self.blocks)]) > 2 * len(self.block) * len(layers):
            raise ModelError(f"has more blocks than the {len(layers)} of num_hidden_layers", where=config.where)
        rows = {"word_embeddings": "vocab_size", "position_embeddings": "max_position_embeddings"}
        for module, key in rows.items():
            shape = tensors[f"embeddings.{module}.weight"].shape
            if shape[0] != config.require(key):
                raise ModelError(
                    f"{module} has {shape[0]} rows, and config.json has {key} {config.require(key)}", where=config.where
                )
        if self.classifies and tensors["classifier.weight"].shape[0] != len(self._labels(config)):
            raise ModelError(
                f"the classifier has {tensors['classifier.weight'].shape[0]} outputs, and id2label in config.json "
                f"names {len(self._labels(config))} classes",
                where=config.where,
            )


def _pooling_type(mode: str, *, where: str) -> PoolingType:
    from gguf import PoolingType

    kinds = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS, "lasttoken": PoolingType.LAST}
    if mode not in kinds:
        raise ModelError(f"llama.cpp has no pooling {mode}", where=where, remedy=f"it has {', '.join(kinds)}")
    return kinds[mode]
