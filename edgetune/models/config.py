"""A model's configuration, read without importing Transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edgetune.errors import ModelError
from edgetune.models.families import find_family
from edgetune.models.gguf_file import GgufFile
from edgetune.models.locate import ModelFiles

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_DEFAULT_ROPE_THETA = 10000.0
"""Transformers' default; old config.json files leave it out."""

_POOLING_FLAGS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "lasttoken": "pooling_mode_lasttoken",
}
"""pooling_mode -> its flag in files of older versions of Sentence Transformers."""


class ModelConfig:
    """The settings of config.json under Transformers' names, without the defaults of Transformers' class. Immutable.

    `where` names the model in errors.
    """

    def __init__(self, settings: Mapping[str, Any], *, where: str) -> None:
        self.settings: Mapping[str, Any] = MappingProxyType(dict(settings))
        self.where = where

    def get(self, key: str, default: Any = None) -> Any:
        """The value under `key`; `default` where it is missing or null."""
        value = self.settings.get(key)
        return default if value is None else value

    def require(self, key: str) -> Any:
        """The value under `key`. Raises ModelError when it is missing."""
        value = self.get(key)
        if value is None:
            raise ModelError(f"config.json has no {key}", where=self.where, remedy="download the model again")
        return value

    @property
    def model_type(self) -> str:
        """Transformers' name of the family (llama, qwen2, ...)."""
        return str(self.get("model_type", ""))

    @property
    def architectures(self) -> tuple[str, ...]:
        """Transformers' model classes, LlamaForCausalLM for instance."""
        return tuple(self.get("architectures", ()))

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return int(self.get("head_dim") or self.require("hidden_size") // self.require("num_attention_heads"))

    @property
    def ties_embeddings(self) -> bool:
        """True when the output layer is the input embedding."""
        return bool(self.get("tie_word_embeddings", find_family(self.model_type).ties_embeddings))

    @property
    def rope(self) -> Mapping[str, Any]:
        """Rotary embedding: rope_theta, rope_type and the fields of that type.

        Newer files have them under `rope_parameters`, older ones under `rope_theta` and `rope_scaling`.
        """
        scaling = dict(self.get("rope_parameters") or self.get("rope_scaling") or {})
        kind = scaling.pop("type", None)
        scaling.setdefault("rope_type", kind or "default")
        scaling.setdefault("rope_theta", self.get("rope_theta", _DEFAULT_ROPE_THETA))
        return MappingProxyType(scaling)

    @property
    def text(self) -> ModelConfig:
        """The configuration of the text model: the text_config, or the whole configuration where there is none."""
        said = self.get("text_config")
        if not isinstance(said, dict):
            return self
        return ModelConfig({**said, "tie_word_embeddings": self.ties_embeddings}, where=self.where)

    def with_vocabulary(self, tokens: int) -> ModelConfig:
        """A copy with another number of tokens, also in the text model's configuration."""
        said = self.get("text_config")
        text = {"text_config": {**said, "vocab_size": tokens}} if isinstance(said, dict) else {}
        return self.replace(vocab_size=tokens, **text)

    def replace(self, **changes: Any) -> ModelConfig:
        """A copy with other values."""
        return ModelConfig({**self.settings, **changes}, where=self.where)

    def in_transformers(self) -> PretrainedConfig:
        """The same as Transformers' object, without architectures, which Transformers sets when it saves a model."""
        from transformers import AutoConfig

        return AutoConfig.for_model(**{key: value for key, value in self.settings.items() if key != "architectures"})


def read_config(files: ModelFiles) -> ModelConfig:
    """The configuration of a model folder or GGUF file, without quantization marks. Raises ModelError."""
    if files.gguf is not None:
        settings = _gguf_settings(GgufFile(files.gguf))
    else:
        settings = {**read_settings(files.folder / "config.json"), **_pooling(files.folder)}
    settings.pop("quantization_config", None)
    return ModelConfig(settings, where=files.reference)


def _gguf_settings(file: GgufFile) -> dict[str, Any]:
    """The settings of the causal language model of the file's family; a GGUF names no Transformers class.

    Llama is read here, others by Transformers. Raises ModelError for rope scaling, which Transformers does not read.
    """
    from edgetune.models.gguf_llama import llama_settings

    architecture = str(file.metadata.get("general.architecture"))
    scaled = file.metadata.get(f"{architecture}.rope.scaling.type", "none") != "none"
    if scaled or any(name.startswith("rope_") for name in file.tensors):
        raise ModelError(
            "this GGUF extends its context by rope scaling, which Transformers does not read from a GGUF",
            where=file.path,
            remedy="use the Hugging Face model that it was made from (base.model in a recipe, --base for an adapter)",
        )
    if architecture == "llama":
        return {**llama_settings(file), "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config = AutoConfig.from_pretrained(file.path.parent, gguf_file=file.path.name)
        architectures = config.architectures or [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]]
    except (OSError, ValueError, KeyError) as problem:
        raise ModelError(
            f"Transformers cannot read the configuration of this {architecture} GGUF ({problem})", where=file.path
        ) from problem
    return {**config.to_dict(), "architectures": architectures}


def _pooling(folder: Path) -> dict[str, Any]:
    """`pooling`, by which a Sentence Transformers model makes one vector of a text: mean, cls or lasttoken."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return {}
    for module in json.loads(modules.read_text(encoding="utf-8")):
        if str(module.get("type", "")).endswith("Pooling"):
            said = read_settings(folder / str(module.get("path", "")) / "config.json")
            modes = [mode for mode, flag in _POOLING_FLAGS.items() if said.get(flag)]
            return {"pooling": modes[0] if modes else said.get("pooling_mode")}
    return {}


def read_settings(file: Path) -> dict[str, Any]:
    """The JSON object in a model's file. Raises ModelError when it cannot be read or is something else."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ModelError(
            f"is not readable JSON ({problem})", where=file, remedy="download the model again"
        ) from problem
    if not isinstance(settings, dict):
        raise ModelError("does not hold settings (a JSON object)", where=file, remedy="download the model again")
    return settings
