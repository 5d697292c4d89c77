"""An adapter on a base whose embedding is its output layer too: what each of the two becomes, and if they stay one.

PEFT wraps the two modules one by one around the one weight. What it trains of the one module alone is not in the other,
although merge_and_unload() writes into the weight of both. The fold follows the adapter as it computes before a merge.
"""

from __future__ import annotations

from edgetune.errors import AdapterError
from edgetune.models.families import EmbeddingNames
from edgetune.weights.adapter_file import MODEL_PREFIX, AdapterFile
from edgetune.weights.adapter_keys import AdapterKeys, ModuleKeys
from edgetune.weights.source import Adapter

_MIRRORED = {"lora_A.weight": "lora_embedding_B", "lora_B.weight": "lora_embedding_A"}
"""LoRA of the output layer -> the tensor of the embedding's that PEFT makes it from when it ties the two."""

_COMPARED_ROWS = 4096


def settle_tied(adapter: Adapter, file: AdapterFile, keys: AdapterKeys, names: EmbeddingNames) -> bool:
    """True when embedding and output layer stay one weight with this adapter on them.

    Completes `keys`: what was saved of the one module and holds for both (their weight after a change of the
    vocabulary, rows that were trained for both) is noted for the other too. Raises AdapterError where the file
    contradicts ensure_weight_tying.
    """
    paths = [name.rpartition(".")[0] for name in (names.embedding, names.head)]
    if not any(path in keys.modules for path in paths):
        return True
    embedding, head = (keys.modules.setdefault(path, ModuleKeys(path)) for path in paths)
    frozen = embedding.frozen_weight or head.frozen_weight
    if embedding.rows is not None and head.rows is None and not _is_retrained(head):
        head.rows = embedding.rows  # PEFT wraps both when it is told of the embedding's tokens, and saves the rows once
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


def _same_weight(file: AdapterFile, one: ModuleKeys, other: ModuleKeys) -> bool:
    import numpy as np

    keys = one.replacements.get("weight"), other.replacements.get("weight")
    if keys[0] is None or keys[1] is None or keys[0] == keys[1]:
        return keys[0] == keys[1]
    infos = [file.tensors[key] for key in keys if key is not None]
    if (infos[0].shape, infos[0].dtype) != (infos[1].shape, infos[1].dtype):
        return False
    for start in range(0, infos[0].shape[0], _COMPARED_ROWS):
        stop = min(start + _COMPARED_ROWS, infos[0].shape[0])
        if not np.array_equal(file.rows(keys[0], start, stop), file.rows(keys[1], start, stop)):
            return False
    return True


def _drop_mirrored(adapter: Adapter, file: AdapterFile, embedding: ModuleKeys, head: ModuleKeys) -> None:
    """Take the output layer's LoRA away where it is the embedding's, as ensure_weight_tying says."""
    import numpy as np

    for key in head.adapter_keys:
        mirrored = _MIRRORED.get(key.removeprefix(f"{MODEL_PREFIX}{head.path}."))
        source = f"{MODEL_PREFIX}{embedding.path}.{mirrored}"
        if source not in file.tensors or not np.array_equal(file.rows(key), file.rows(source).T):
            raise AdapterError(
                f"ensure_weight_tying is set, and {key} is not what {embedding.path} has",
                where=adapter.folder,
                remedy="train again without ensure_weight_tying, or merge it with the tool that trained it",
            )
    head.adapter_keys.clear()
