"""The names of a model's input embedding and output layer, and whether they are tied."""

from __future__ import annotations

from collections.abc import Collection

from edgetune.models.config import ModelConfig
from edgetune.models.families import EmbeddingNames, find_family
from edgetune.models.locate import ModelFiles


def embedding_names(config: ModelConfig, files: ModelFiles, tensors: Collection[str]) -> EmbeddingNames | None:
    """The names in a model that has `tensors`; None for a model without such a pair.

    Transformers is asked about a family without a record. Raises ModelError when it does not know the family.
    """
    known = find_family(config.model_type).embeddings
    if known is None:
        return _from_transformers(files)
    # In a model with a head, the names may have a prefix: an encoder's family, or T5's "transformer".
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
