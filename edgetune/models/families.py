"""What edgetune knows about model families: one record each, by Transformers' model_type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

ModelKind = Literal["decoder", "encoder-decoder", "encoder"]

TEXT_PREFIX = "model.language_model."
"""The prefix of the text model's weights in a model that also reads images."""


@dataclass(frozen=True)
class EmbeddingNames:
    """Hugging Face's tensor names. `copies` are other names under which a checkpoint may repeat the embedding."""

    embedding: str
    head: str
    copies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A model family. The defaults describe a decoder that edgetune has no record of."""

    kind: ModelKind = "decoder"
    embeddings: EmbeddingNames | None = None
    """The embedding and the output layer. A family that has them here is also known to have the same weight names on
    disk and in memory, except with `reads_images`. Transformers is asked for what is not here."""
    ties_embeddings: bool = False
    """Whether its Transformers configuration ties the embeddings where config.json does not say."""
    reads_images: bool = False
    """It has a text model, a vision tower and a projector, whose weights Transformers renames when it reads them."""
    query_and_value: tuple[str, ...] = ()
    """The projections of queries and values, which LoRA's paper adapts (https://arxiv.org/abs/2106.09685, section 4.2).
    Empty: all linear layers are adapted, except the output layer."""
    key_value_feedforward: tuple[str, ...] = ("k_proj", "v_proj", "down_proj")
    """What IA³ scales (https://arxiv.org/abs/2205.05638, section 3.3), for families that PEFT has no default for."""
    tokenizer_class: str | None = None
    """The tokenizer class that Transformers 5.17 uses for every folder of the family, whatever the folder names."""
    positions_after_padding: bool = False
    """It numbers positions from the padding token's id on, and never uses the position embeddings before."""
    packs: bool = False
    """The tests show that its attention is plain causal attention behind Transformers' attention interface."""
    unsloth: bool = False
    """Unsloth's FastLanguageModel replaces its layers; other families go to a generic loader there."""


_DECODER = Family(embeddings=EmbeddingNames("model.embed_tokens.weight", "lm_head.weight"))
_WITH_IMAGES = Family(
    embeddings=EmbeddingNames(f"{TEXT_PREFIX}embed_tokens.weight", "lm_head.weight"),
    ties_embeddings=True,
    reads_images=True,
)
_T5_LIKE = Family("encoder-decoder", query_and_value=("q", "v"))
_BART_LIKE = Family("encoder-decoder", query_and_value=("q_proj", "v_proj"))
_BERT_LIKE = Family("encoder", query_and_value=("query", "value"))
_ROBERTA_LIKE = replace(_BERT_LIKE, positions_after_padding=True)
_IA3_OF_ENCODERS = ("key", "value", "output.dense")

FAMILIES: Mapping[str, Family] = {
    "gemma": replace(_DECODER, ties_embeddings=True, unsloth=True),
    "gemma2": replace(_DECODER, ties_embeddings=True, unsloth=True),
    "gemma3": _WITH_IMAGES,
    "gemma3_text": replace(_DECODER, ties_embeddings=True),
    "granite": replace(_DECODER, tokenizer_class="TokenizersBackend", packs=True),
    "llama": replace(_DECODER, packs=True, unsloth=True),
    "mistral": replace(_DECODER, tokenizer_class="TokenizersBackend", packs=True, unsloth=True),
    "mistral3": _WITH_IMAGES,
    "phi3": replace(_DECODER, key_value_feedforward=("qkv_proj", "down_proj"), tokenizer_class="TokenizersBackend"),
    "qwen2": replace(_DECODER, tokenizer_class="Qwen2Tokenizer", packs=True, unsloth=True),
    "qwen3": replace(_DECODER, packs=True, unsloth=True),
    "smollm3": replace(_DECODER, ties_embeddings=True),
    "t5": replace(
        _T5_LIKE,
        embeddings=EmbeddingNames(
            "shared.weight", "lm_head.weight", copies=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
        ),
        ties_embeddings=True,
    ),
    **dict.fromkeys(("longt5", "mt5", "switch_transformers", "umt5"), _T5_LIKE),
    **dict.fromkeys(("bart", "marian", "mbart", "pegasus", "t5gemma"), _BART_LIKE),
    "led": Family("encoder-decoder", query_and_value=("query", "value", "q_proj", "v_proj")),
    "bert": replace(
        _BERT_LIKE,
        embeddings=EmbeddingNames("embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        ties_embeddings=True,
    ),
    "distilbert": Family(
        "encoder",
        embeddings=EmbeddingNames("embeddings.word_embeddings.weight", "vocab_projector.weight"),
        ties_embeddings=True,
        query_and_value=("q_lin", "v_lin"),
        key_value_feedforward=("k_lin", "v_lin", "lin2"),
    ),
    "albert": _BERT_LIKE,
    "camembert": replace(_ROBERTA_LIKE, key_value_feedforward=_IA3_OF_ENCODERS),
    "deberta": Family("encoder", query_and_value=("in_proj",)),
    "deberta-v2": Family("encoder", query_and_value=("query_proj", "value_proj")),
    "electra": replace(_BERT_LIKE, key_value_feedforward=_IA3_OF_ENCODERS),
    "modernbert": Family("encoder", query_and_value=("Wqkv",)),
    "mpnet": replace(_ROBERTA_LIKE, query_and_value=("q", "v")),
    "roberta": _ROBERTA_LIKE,
    "xlm-roberta": replace(_ROBERTA_LIKE, key_value_feedforward=_IA3_OF_ENCODERS),
}


def find_family(model_type: str) -> Family:
    """The record of a configuration's model_type; that of an unknown decoder where there is none."""
    return FAMILIES.get(model_type, Family())


def kind_of(model_type: str) -> ModelKind:
    """Whether a model with this model_type is a decoder, an encoder or both."""
    return find_family(model_type).kind


def families_with(trait: Literal["packs", "unsloth"]) -> list[str]:
    """The model types of all families that have this trait, sorted."""
    return sorted(name for name, family in FAMILIES.items() if getattr(family, trait))


def task_type(kind: ModelKind, *, classifies: bool) -> str:
    """PEFT's name for the task of such a model, with or without a classification head."""
    if classifies:
        return "SEQ_CLS"
    return "SEQ_2_SEQ_LM" if kind == "encoder-decoder" else "CAUSAL_LM"


def auto_class(model_type: str, *, classifies: bool) -> Any:
    """Transformers' AutoModel class. For some families that read images, that is not AutoModelForCausalLM."""
    import transformers
    from transformers.models.auto import modeling_auto

    if classifies:
        return transformers.AutoModelForSequenceClassification
    if kind_of(model_type) == "encoder-decoder":
        return transformers.AutoModelForSeq2SeqLM
    names = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if model_type not in names[0] and model_type in names[1]:
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM
