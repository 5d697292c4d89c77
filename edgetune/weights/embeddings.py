"""Which tensors of a model are its vocabulary's: the input embedding, and the output layer that may be tied to it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edgetune.models.config import ModelConfig
from edgetune.models.locate import ModelFiles
from edgetune.models.weight_names import TEXT


@dataclass(frozen=True)
class EmbeddingNames:
    """Hugging Face's tensor names. `copies` are further names under which a checkpoint may repeat the embedding."""

    embedding: str
    head: str
    copies: tuple[str, ...] = ()


_DECODER = EmbeddingNames("model.embed_tokens.weight", "lm_head.weight")
_DECODERS = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
    *("phi3", "smollm3", "granite"),
)
_FAMILIES = {
    **dict.fromkeys(_DECODERS, _DECODER),
    **dict.fromkeys(("gemma3", "mistral3"), EmbeddingNames(f"{TEXT}embed_tokens.weight", "lm_head.weight")),
    "t5": EmbeddingNames(
        "shared.weight", "lm_head.weight", copies=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    ),
    "bert": EmbeddingNames("embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
    "distilbert": EmbeddingNames("embeddings.word_embeddings.weight", "vocab_projector.weight"),
}


def embedding_names(config: ModelConfig, files: ModelFiles, tensors: Collection[str]) -> EmbeddingNames | None:
    """The names in this model, whose base holds `tensors`; None for a model without such a pair.

    A family that is not known here is looked up in Transformers. Raises ModelError when it is not known there either.
    """
    known = _FAMILIES.get(config.model_type)
    if known is None:
        return _from_transformers(files)
    # Beside a head the embedding may have a name before it: an encoder's family, or T5's "transformer".
    for before in (config.model_type, "transformer"):
        prefixed = f"{before}.{known.embedding}"
        if prefixed in tensors:
            return EmbeddingNames(prefixed, known.head, tuple(f"{before}.{copy}" for copy in known.copies))
    return known


def _from_transformers(files: ModelFiles) -> EmbeddingNames | None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    from edgetune.models.load import load_config

    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(load_config(files)), None)
    tied = getattr(causal, "_tied_weights_keys", None)
    if isinstance(tied, dict) and len(tied) == 1:
        head, embedding = next(iter(tied.items()))
        return EmbeddingNames(str(embedding), str(head))
    return None
