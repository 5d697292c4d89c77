"""The names of weights: on disk, in memory, and those of embedding and output layer.

An adapter is trained on a model in memory, so its keys use those names. For some families Transformers renames what it
reads (transformers/conversion_mapping.py), and any family's network may be stored without the prefix that it has in a
model with a head.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from edgetune.models.config import ModelConfig
from edgetune.models.families import TEXT_PREFIX, EmbeddingNames, auto_class, find_family
from edgetune.models.locate import ModelFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PREFIXES = {
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": TEXT_PREFIX,
    "vision_tower.vision_model.": "model.vision_tower.",
    "model.vision_tower.vision_model.": "model.vision_tower.",
    "vision_tower.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}
"""On disk -> in memory, in models with a text model, a vision tower and a projector. The first match counts."""


def names_in_memory(config: ModelConfig, files: ModelFiles, stored: Collection[str]) -> dict[str, str]:
    """Name in memory -> name on disk, for all of `stored`.

    Transformers is asked about a family without a record. Tensors that it combines with others keep their names.
    """
    family = find_family(config.model_type)
    if files.gguf is not None or (family.embeddings is not None and not family.reads_images):
        return {name: name for name in stored}
    rename = name_with_images if family.reads_images else _renaming_of_transformers(config, files)
    renamed = {rename(name): name for name in stored}
    return renamed if len(renamed) == len(stored) else {name: name for name in stored}


def name_with_images(name: str) -> str:
    """Transformers' name for a tensor that has its name of versions before 4.52, which is still used on disk."""
    for stored, held in _PREFIXES.items():
        if name.startswith(stored):
            return held + name.removeprefix(stored)
    return name


def embedding_names(config: ModelConfig, files: ModelFiles, tensors: Collection[str]) -> EmbeddingNames | None:
    """The names in a model that has `tensors`; None for a model without such a pair.

    Transformers is asked about a family without a record. Raises ModelError when it does not know the family.
    """
    known = find_family(config.model_type).embeddings
    if known is None:
        return _embeddings_of_transformers(files)
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


def _renaming_of_transformers(config: ModelConfig, files: ModelFiles) -> Callable[[str], str]:
    """Transformers' own renaming, for the model without its weights."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

        model = _model_without_weights(config, files)
    except (ImportError, ValueError, KeyError, AttributeError):
        return lambda name: name  # an older Transformers, or code that comes with the model
    held = model.state_dict()
    steps = get_model_conversion_mapping(model)
    renamings = [step for step in steps if isinstance(step, WeightRenaming)]
    converters = [step for step in steps if isinstance(step, WeightConverter)]

    def rename(name: str) -> str:
        renamed, converted = rename_source_key(name, renamings, converters, model.base_model_prefix, held)
        return renamed if converted is None and renamed in held else name

    return rename


def _model_without_weights(config: ModelConfig, files: ModelFiles) -> PreTrainedModel:
    import transformers

    from edgetune.models.load import load_config, without_weights

    named = next(iter(config.architectures), "Model")
    if named.endswith("Model") and not named.endswith("LMHeadModel"):
        return without_weights(auto_class(config.model_type, classifies=False).from_config, load_config(files))
    return without_weights(getattr(transformers, named), load_config(files))


def _embeddings_of_transformers(files: ModelFiles) -> EmbeddingNames | None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    from edgetune.models.load import load_config

    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(load_config(files)), None)
    tied = getattr(causal, "_tied_weights_keys", None)
    if isinstance(tied, dict) and len(tied) == 1:
        head, embedding = next(iter(tied.items()))
        return EmbeddingNames(str(embedding), str(head))
    return None
