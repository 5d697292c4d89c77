"""Model families by their Transformers class. A new family is one file here and one line in _OWN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

from edgetune.errors import ModelError
from edgetune.gguf.architectures.bert import Bert
from edgetune.gguf.architectures.distilbert import DistilBert
from edgetune.gguf.architectures.gemma2 import Gemma2
from edgetune.gguf.architectures.gemma3 import Gemma3
from edgetune.gguf.architectures.granite import Granite
from edgetune.gguf.architectures.llama import Llama
from edgetune.gguf.architectures.mistral import Mistral
from edgetune.gguf.architectures.phi3 import Phi3
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.gguf.architectures.qwen2 import Qwen2
from edgetune.gguf.architectures.qwen3 import Qwen3
from edgetune.gguf.architectures.smollm3 import SmolLM3
from edgetune.gguf.architectures.t5 import T5, T5Encoder
from edgetune.gguf.architectures.text_part import TextPart
from edgetune.models.config import ModelConfig
from edgetune.plugins import GGUF_ARCHITECTURES_GROUP, Registry
from edgetune.weights.base import TensorInfo

if TYPE_CHECKING:
    from gguf import GGUFWriter


class Architecture(Protocol):
    """A model family in llama.cpp."""

    @property
    def gguf_name(self) -> str:
        """llama.cpp's name (general.architecture)."""

    def describe(self, config: ModelConfig, writer: GGUFWriter) -> None:
        """Write the hyperparameters. Raises ModelError for a configuration that llama.cpp cannot compute."""

    def plan(self, config: ModelConfig, tensors: Mapping[str, TensorInfo]) -> list[OutputTensor]:
        """The file's tensors in order. Raises ModelError for a tensor that is missing or has no place."""


_OWN: dict[str, Architecture] = {
    "BertForMaskedLM": Bert(),
    "BertForSequenceClassification": Bert(classifies=True),
    "BertModel": Bert(),
    "DistilBertForMaskedLM": DistilBert(),
    "DistilBertForSequenceClassification": DistilBert(classifies=True),
    "DistilBertModel": DistilBert(),
    "Gemma2ForCausalLM": Gemma2(),
    "Gemma3ForCausalLM": Gemma3(),
    "Gemma3ForConditionalGeneration": TextPart({"gemma3_text": Gemma3()}),
    "GraniteForCausalLM": Granite(),
    "LlamaForCausalLM": Llama(),
    "Mistral3ForConditionalGeneration": TextPart({"mistral": Mistral()}),
    "MistralForCausalLM": Mistral(),
    "Phi3ForCausalLM": Phi3(),
    "Qwen2ForCausalLM": Qwen2(),
    "Qwen3ForCausalLM": Qwen3(),
    "SmolLM3ForCausalLM": SmolLM3(),
    "T5EncoderModel": T5Encoder(),
    "T5ForConditionalGeneration": T5(),
}


def _adopt(name: str, given: object) -> Architecture:
    """A plugin's Architecture, or a class or function that makes one. Raises TypeError for anything else."""
    made = given() if callable(given) else given
    missing = [part for part in ("gguf_name", "describe", "plan") if not hasattr(made, part)]
    if missing:
        raise TypeError(f"{given!r} has no {' and no '.join(missing)}")
    return cast(Architecture, made)


ARCHITECTURES = Registry[Architecture](GGUF_ARCHITECTURES_GROUP, _OWN, _adopt)
"""By the name of the Transformers class: edgetune's own, and those of plugins."""

_WITH_HEAD = "ForSequenceClassification"


def find_architecture(config: ModelConfig, *, where: str) -> Architecture:
    """The family of a model. Raises ModelError listing the known ones."""
    for name in config.architectures:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
        if name.endswith(_WITH_HEAD):
            written = [known for known in ARCHITECTURES if known.endswith(_WITH_HEAD)]
            raise ModelError(
                f"is a {name}, and edgetune writes classification heads as GGUF of {' and '.join(written)} only",
                where=where,
                remedy="train with base.head lm, which answers with the label's words, or use the model that edgetune "
                "merge writes with Transformers",
            )
    raise ModelError(
        f"is a {' / '.join(config.architectures) or config.model_type or 'model of no known class'}, which edgetune"
        " cannot write as GGUF itself",
        where=where,
        remedy=f"it writes {', '.join(ARCHITECTURES)}; for any other, --converter PATH runs llama.cpp's"
        " convert_hf_to_gguf.py where you have it",
    )
