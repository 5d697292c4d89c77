"""What kind of model a family is, and the Transformers class that loads it for a task."""

from __future__ import annotations

from typing import Any, Literal

ModelKind = Literal["decoder", "encoder-decoder", "encoder"]

ENCODER_DECODERS = frozenset(
    {"t5", "mt5", "umt5", "longt5", "switch_transformers", "bart", "mbart", "pegasus", "marian", "led", "t5gemma"}
)
ENCODERS = frozenset(
    {
        "bert",
        "distilbert",
        "roberta",
        "xlm-roberta",
        "camembert",
        "electra",
        "albert",
        "mpnet",
        "deberta",
        "deberta-v2",
        "modernbert",
    }
)  # fmt: skip


def kind_of(model_type: str) -> ModelKind:
    """The kind behind a configuration's model_type; what is in neither list is a decoder."""
    if model_type in ENCODER_DECODERS:
        return "encoder-decoder"
    return "encoder" if model_type in ENCODERS else "decoder"


def task_type(kind: ModelKind, *, classifies: bool) -> str:
    """PEFT's name of what such a model does, with a classification head or without."""
    if classifies:
        return "SEQ_CLS"
    return "SEQ_2_SEQ_LM" if kind == "encoder-decoder" else "CAUSAL_LM"


def auto_class(kind: ModelKind, *, classifies: bool, model_type: str = "") -> Any:
    """Transformers' AutoModel class for it. Some families that read images are no causal model to Transformers."""
    import transformers
    from transformers.models.auto import modeling_auto

    if classifies:
        return transformers.AutoModelForSequenceClassification
    if kind == "encoder-decoder":
        return transformers.AutoModelForSeq2SeqLM
    names = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if model_type not in names[0] and model_type in names[1]:
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM
