"""An adapter on a base with tied embeddings: what embedding and output layer become, and whether they stay tied.

PEFT wraps the two modules separately, with the same weight in both. What it trains in one of them is not in the other,
although merge_and_unload() changes the weight of both. The fold follows the adapter's computation before a merge.
"""

from __future__ import annotations

from edgetune.errors import AdapterError
from edgetune.models.families import EmbeddingNames
from edgetune.weights.adapter_file import MODEL_PREFIX, AdapterFile
from edgetune.weights.adapter_keys import AdapterKeys, ModuleKeys
from edgetune.weights.base import BaseTensors
from edgetune.weights.source import Adapter

_MIRRORED = {"lora_A.weight": "lora_embedding_B", "lora_B.weight": "lora_embedding_A"}
"""LoRA of the output layer -> the embedding's tensor from which PEFT makes it when it ties the two."""

_COMPARED_ROWS = 4096


def settle_tied(adapter: Adapter, file: AdapterFile, keys: AdapterKeys, names: EmbeddingNames) -> bool:
    """True when embedding and output layer stay tied with this adapter.

    Completes `keys`: what was saved for one module and applies to both (their weight after a change of the vocabulary,
    rows that were trained for both) is added to the other. Raises AdapterError where the file contradicts
    ensure_weight_tying.
    """
    paths = [name.rpartition(".")[0] for name in (names.embedding, names.head)]
    if not any(path in keys.modules for path in paths):
        return True
    embedding, head = (keys.modules.setdefault(path, ModuleKeys(path)) for path in paths)
    frozen = embedding.frozen_weight or head.frozen_weight
    if embedding.rows is not None and head.rows is None and not _is_retrained(head):
        head.rows = embedding.rows  # PEFT trains the rows of both, and saves them once
    for module in (embedding, head):
        if frozen is not None:
            module.replacements.setdefault("weight", frozen)
    shared = bool(adapter.settings.get("ensure_weight_tying") and embedding.adapter_keys)
    if shared:
        _drop_mirrored(adapter, file, embedding, head)
    for module in (embedding, head):
        if not (module.adapter_keys or module.replacements or module.rows):
            del keys.modules[module.path]
    if shared:
        return True
    if embedding.adapter_keys or head.adapter_keys:
        return False
    return embedding.rows == head.rows and _same_weight(file, embedding, head)


def _is_retrained(module: ModuleKeys) -> bool:
    return module.replacements.get("weight") not in (None, module.frozen_weight)


def _same_weight(file: AdapterFile, embedding: ModuleKeys, head: ModuleKeys) -> bool:
    one, other = embedding.replacements.get("weight"), head.replacements.get("weight")
    return one == other or (one is not None and other is not None and same_rows(file, one, other))


def same_rows(source: BaseTensors | AdapterFile, one: str, other: str) -> bool:
    """True when two matrices of `source` have the same type and the same values, compared a block of rows at a time."""
    import numpy as np

    (rows, *columns), dtype = source.tensors[one].shape, source.tensors[one].dtype
    if (source.tensors[other].shape, source.tensors[other].dtype) != ((rows, *columns), dtype):
        return False
    for start in range(0, rows, _COMPARED_ROWS):
        stop = min(start + _COMPARED_ROWS, rows)
        if not np.array_equal(source.rows(one, start, stop), source.rows(other, start, stop)):
            return False
        source.release(one, start, stop)
        source.release(other, start, stop)
    return True


def _drop_mirrored(adapter: Adapter, file: AdapterFile, embedding: ModuleKeys, head: ModuleKeys) -> None:
    """Remove the output layer's LoRA, which is the embedding's because of ensure_weight_tying."""
    import numpy as np

    for key in head.adapter_keys:
        mirrored = _MIRRORED.get(key.removeprefix(f"{MODEL_PREFIX}{head.path}."))
        source = f"{MODEL_PREFIX}{embedding.path}.{mirrored}"
        if source not in file.tensors or not np.array_equal(file.rows(key), file.rows(source).T):
            raise AdapterError(
                f"ensure_weight_tying is set, and {key} differs from {embedding.path}",
                where=adapter.folder,
                remedy="train again without ensure_weight_tying, or merge it with the tool that trained it",
            )
    head.adapter_keys.clear()
