"""The pairs of A and B that llama.cpp's LoRA file can express. Other parts of an adapter are refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgetune.errors import AdapterError
from edgetune.gguf.architectures import find_architecture
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.models.weight_names import embedding_names
from edgetune.weights.adapter_file import MODEL_PREFIX, AdapterFile
from edgetune.weights.adapter_keys import ModuleKeys, assign_keys, incomplete, other_base
from edgetune.weights.base import ITEM_BYTES, TensorInfo
from edgetune.weights.fold import INVOCATION_TOKENS
from edgetune.weights.lora import PlainLora, is_plain_lora, lora_rank, lora_scaling
from edgetune.weights.source import Adapter
from edgetune.weights.stream import FoldedTensors

if TYPE_CHECKING:
    import numpy as np

_LINEAR = ("lora_A.weight", "lora_B.weight")
_EMBEDDING = ("lora_embedding_A", "lora_embedding_B")
_COMPARED_ROWS = 4096


@dataclass(frozen=True)
class LoraPair:
    """One module's A and B: keys in the adapter, name and shapes in the file.

    `factor` is multiplied into B; `order` gives the row of B for each row in the file, if they differ. A of an
    embedding is stored transposed, because llama.cpp looks tokens up in it.
    """

    name: str
    keys: tuple[str, str]
    shapes: tuple[tuple[int, int], tuple[int, int]]
    factor: float
    order: np.ndarray | None
    embedding: bool


def refuse_other_methods(adapter: Adapter) -> None:
    """Raise AdapterError for anything but plain and activated LoRA."""
    settings = {key: value for key, value in adapter.settings.items() if key != INVOCATION_TOKENS}
    kind = str(settings["peft_type"]).removeprefix("PeftType.")
    if kind != "LORA":
        raise inexpressible(adapter, f"is a {kind} adapter")
    if not is_plain_lora(settings):
        raise inexpressible(adapter, _variant(settings))


def _variant(settings: Mapping[str, Any]) -> str:
    """Why a LoRA is more than A and B."""
    if settings.get("use_dora"):
        return "is a DoRA (use_dora)"
    if settings.get("lora_bias") or settings.get("bias", "none") != "none":
        return "trains biases"
    start = settings.get("init_lora_weights", True)
    if isinstance(start, str) and start != "gaussian":
        return f"may have changed the base before it was trained (init_lora_weights: {start})"
    return "is a variant of LoRA"


def gather_pairs(adapter: Adapter, file: AdapterFile, base: FoldedTensors, alpha: float) -> list[LoraPair]:
    """Every pair, in the order of the base's tensors. Raises AdapterError for parts that cannot be written."""
    plan = find_architecture(base.config, where=base.config.where).plan(base.config, base.tensors)
    names = embedding_names(base.config, base.source.base, base.tensors)
    known: dict[str, TensorInfo] = dict(base.tensors)
    tied: set[str] = set()
    if names is not None and base.config.get("tie_word_embeddings"):
        known[names.head] = replace(known[names.embedding], name=names.head)
        tied = {names.head, names.embedding}
    modules = assign_keys(adapter, file.tensors, known).modules
    pairs = {}
    for path, module in modules.items():
        _refuse_module(adapter, file, module, base, tied)
        if module.adapter_keys:
            pairs[path] = _pair(adapter, file, replace(module, replacements={}), known, alpha)
    placed = {tensor.source: tensor for tensor in plan}
    return [
        _placed(adapter, pairs[path], placed.get(f"{path}.weight"))
        for path in (name.removesuffix(".weight") for name in known)
        if path in pairs
    ]


def _refuse_module(
    adapter: Adapter, file: AdapterFile, module: ModuleKeys, base: FoldedTensors, tied: set[str]
) -> None:
    if module.adapter_keys and f"{module.path}.weight" in tied:
        raise inexpressible(
            adapter, (f"adapts {module.path}, which this base uses both as embedding and as output layer")
        )
    if module.rows is not None:
        raise inexpressible(adapter, f"has trained rows of {module.path} (trainable_token_indices)")
    for parameter, key in module.replacements.items():
        name = f"{module.path}.{parameter}"
        if not _is_copy(file, key, base, name):
            raise inexpressible(adapter, f"has a trained {name} (modules_to_save, or a bias)")


def _is_copy(file: AdapterFile, key: str, base: FoldedTensors, name: str) -> bool:
    """True for a tensor that equals the base's: PEFT saves an adapted embedding whether it was trained or not."""
    import numpy as np

    info = base.tensors.get(name)
    if info is None or (info.shape, info.dtype) != (file.tensors[key].shape, file.tensors[key].dtype):
        return False
    for start in range(0, info.shape[0], _COMPARED_ROWS):
        stop = min(start + _COMPARED_ROWS, info.shape[0])
        if not np.array_equal(file.rows(key, start, stop), base.rows(name, start, stop)):
            return False
        base.release(name, start, stop)
    return True


def _pair(
    adapter: Adapter, file: AdapterFile, module: ModuleKeys, base: Mapping[str, TensorInfo], alpha: float
) -> LoraPair:
    """The module's pair under the base's own name. Raises AdapterError if its tensors do not fit."""
    weight = base[f"{module.path}.weight"]
    own = {key.removeprefix(f"{MODEL_PREFIX}{module.path}.") for key in module.adapter_keys}
    embedding = own == set(_EMBEDDING)
    if embedding:
        rank = lora_rank(adapter.settings, module.path)
        keys = _keys(module, _EMBEDDING)
        shapes = (weight.shape[0], rank), (weight.shape[1], rank)
        _check_shapes(adapter, file, keys, ((rank, weight.shape[0]), shapes[1]))
    elif PlainLora.suits(module, weight):
        PlainLora(adapter, file, module, weight)  # refuses what does not fit
        rank = lora_rank(adapter.settings, module.path)
        keys = _keys(module, _LINEAR)
        shapes = (rank, weight.shape[1]), (weight.shape[0], rank)
    else:
        raise inexpressible(adapter, f"has more than A and B for {module.path} ({', '.join(sorted(own))})")
    factor = lora_scaling(adapter.settings, module.path) * rank / alpha
    return LoraPair(weight.name, keys, shapes, factor, order=None, embedding=embedding)


def _keys(module: ModuleKeys, parts: tuple[str, str]) -> tuple[str, str]:
    return f"{MODEL_PREFIX}{module.path}.{parts[0]}", f"{MODEL_PREFIX}{module.path}.{parts[1]}"


def _check_shapes(adapter: Adapter, file: AdapterFile, keys: Sequence[str], needed: Sequence[tuple[int, ...]]) -> None:
    for key, shape in zip(keys, needed, strict=True):
        stored = file.tensors[key]
        if stored.shape != shape:
            raise other_base(adapter, f"{key} has the shape {list(stored.shape)}, but this base needs {list(shape)}")
        if stored.dtype not in ITEM_BYTES:
            raise incomplete(adapter, f"{key} has the type {stored.dtype}, which a LoRA cannot have")


def _placed(adapter: Adapter, pair: LoraPair, tensor: OutputTensor | None) -> LoraPair:
    """The pair under GGUF's name. A transform that reorders the rows of a weight also reorders those of its B."""
    if tensor is None:
        raise inexpressible(adapter, f"adapts {pair.name}, which is not a separate tensor in the base's file")
    order = None if tensor.transform is None else _row_order(tensor)
    if tensor.transform is not None and (order is None or pair.embedding):
        raise inexpressible(adapter, f"adapts {pair.name}, whose values llama.cpp stores in another form")
    return replace(pair, name=tensor.name, order=order)


def _row_order(tensor: OutputTensor) -> np.ndarray | None:
    """The source row of each row in the file; None if the transform does more than reorder rows."""
    import numpy as np

    assert tensor.transform is not None
    rows = np.arange(tensor.shape[0], dtype=np.float32)
    numbered = np.stack([rows, rows + 0.5], axis=1)  # numbers of rows are exact in float32 up to 16 million
    moved = np.asarray(tensor.transform(numbered))
    order = moved[:, 0].astype(np.int64)
    if moved.shape != numbered.shape or not np.array_equal(np.sort(order), np.arange(len(rows))):
        return None
    return order if np.array_equal(moved, numbered[order]) else None


def inexpressible(adapter: Adapter, what: str) -> AdapterError:
    """The error for an adapter that the format cannot express."""
    return AdapterError(
        f"{what}, which llama.cpp's adapter files cannot express",
        where=adapter.folder,
        remedy="export the whole model: `edgetune export` without --adapter-only merges it into the weights",
    )
