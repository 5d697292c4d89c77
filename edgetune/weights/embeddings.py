"""Which tensors of a model are its vocabulary's: the input embedding, and the output layer that may be tied to it."""

from __future__ import annotations

from collections.abc import Collection

from edgetune.models.config import ModelConfig
from edgetune.models.families import EmbeddingNames, find_family
from edgetune.models.locate import ModelFiles


def embedding_names(config: ModelConfig, files: ModelFiles, tensors: Collection[str]) -> EmbeddingNames | None:
    """The names in this model, whose base holds `tensors`; None for a model without such a pair.

    A family that is not known here is looked up in Transformers. Raises ModelError when it is not known there either.
    """
    known = find_family(config.model_type).embeddings
    if known is None:
        return _from_transformers(files)
    # Beside a head the embedding may have a name before it: an encoder's family, or T5's "transformer".
    for before in (config.model_type, "transformer"):
        prefixed = f"{before}.{known.embedding}"
        if prefixed in tensors:
            return EmbeddingNames(prefixed, known.head, tuple(f"{before}.{copy}" for copy in known.copies))
    return known


def ties_embeddings(config: ModelConfig, files: ModelFiles) -> bool:
    """True when the output layer is the input embedding by the model's configuration, or by its family's default."""
    if config.get("tie_word_embeddings") is None and find_family(config.model_type).embeddings is None:
        from edgetune.models.load import load_config

        return bool(load_config(files).tie_word_embeddings)
    return config.ties_embeddings


def _from_transformers(files: ModelFiles) -> EmbeddingNames | None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    from edgetune.models.load import load_config

    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(load_config(files)), None)
    tied = getattr(causal, "_tied_weights_keys", None)
    if isinstance(tied, dict) and len(tied) == 1:
        head, embedding = next(iter(tied.items()))
        return EmbeddingNames(str(embedding), str(head))
    return None
