"""The contents of a GGUF file, read without llama.cpp: a model, a LoRA adapter or an importance matrix."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.gguf.checksums import KEY as CHECKSUMS
from edgetune.gguf.checksums import ChecksumReport, type_name
from edgetune.models.gguf_file import GgufFile, StoredTensor

SHOWN_ITEMS = 8
"""Arrays up to this length are shown completely, longer ones by their beginning."""

_ITEM_KINDS = {6: "float", 7: "bool", 8: "text", 12: "float"}
"""GGUF's kinds of value; those that are missing here are whole numbers."""
_TEMPLATE = "tokenizer.chat_template"
_TOKENIZER = "tokenizer.ggml."


@dataclass(frozen=True)
class LongArray:
    """An array that is too long to be shown: its length, the kind of its items, and its beginning."""

    count: int
    kind: str
    first: Sequence[Any]


@dataclass(frozen=True)
class TypeShare:
    """The tensors of one GGML type."""

    tensors: int
    weights: int
    bytes: int


@dataclass(frozen=True)
class SpecialToken:
    """A special token; `text` is None where the file does not have so many tokens."""

    id: int
    text: str | None


@dataclass(frozen=True)
class Inspection:
    """Everything that is shown of a file.

    `kind` is general.type (model where the file does not say). `metadata` is grouped by the first part of the keys,
    the chat template left out. `lora` and `imatrix` hold what such files say, None for others.
    """

    file: Path
    bytes: int
    kind: str
    architecture: str | None
    weights: int
    bits_per_weight: float
    types: Mapping[str, TypeShare]
    vocabulary: Mapping[str, Any]
    special_tokens: Mapping[str, SpecialToken]
    lineage: Mapping[str, Any]
    lora: Mapping[str, Any] | None
    imatrix: Mapping[str, Any] | None
    metadata: Mapping[str, Mapping[str, Any]]
    chat_templates: Mapping[str, str]
    checksums: ChecksumReport | None = None
    """None where they were not compared, or the file has none."""


def inspect_file(path: Path) -> Inspection:
    """Read the header of a GGUF file. Raises ModelError when it is missing, no GGUF, truncated or damaged."""
    file = GgufFile(path)
    values = _values(file)
    tensors = list(file.tensors.values())
    kind = str(values.get("general.type", "model"))
    return Inspection(
        file=path,
        bytes=path.stat().st_size,
        kind=kind,
        architecture=values.get("general.architecture"),
        weights=count_weights(tensors),
        bits_per_weight=bits_per_weight(tensors),
        types=_types(tensors),
        vocabulary=_vocabulary(values),
        special_tokens=_special_tokens(file),
        lineage=_lineage(values),
        lora=_lora(values, tensors) if kind == "adapter" else None,
        imatrix=_imatrix(values, tensors) if kind == "imatrix" else None,
        metadata=_grouped({key: value for key, value in values.items() if not key.startswith(_TEMPLATE)}),
        chat_templates={
            key.removeprefix(_TEMPLATE).removeprefix(".") or "default": value
            for key, value in values.items()
            if key.startswith(_TEMPLATE) and isinstance(value, str)
        },
    )


def count_weights(tensors: Iterable[StoredTensor]) -> int:
    """The number of weights in the tensors."""
    return sum(math.prod(tensor.shape) for tensor in tensors)


def bits_per_weight(tensors: Collection[StoredTensor]) -> float:
    """The mean over all tensors, block scales included; 0 for a file without tensors."""
    weights = count_weights(tensors)
    return 8 * sum(tensor.nbytes for tensor in tensors) / weights if weights else 0.0


def _values(file: GgufFile) -> dict[str, Any]:
    """Every value of the header in the file's order."""
    values: dict[str, Any] = {}
    for key, entry in file.entries.items():
        if entry.count is None:
            values[key] = file.metadata[key]
        else:
            items = file.array(key, SHOWN_ITEMS) or []
            long = LongArray(entry.count, _ITEM_KINDS.get(entry.kind, "number"), items)
            values[key] = items if entry.count <= SHOWN_ITEMS else long
    return values


def _types(tensors: Sequence[StoredTensor]) -> dict[str, TypeShare]:
    shares: dict[str, TypeShare] = {}
    for tensor in tensors:
        name = type_name(tensor.kind)
        old = shares.get(name, TypeShare(0, 0, 0))
        shares[name] = TypeShare(old.tensors + 1, old.weights + math.prod(tensor.shape), old.bytes + tensor.nbytes)
    return dict(sorted(shares.items(), key=lambda share: -share[1].bytes))


def _vocabulary(values: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizer's kind, pre-tokenizer, number of tokens, and the tokens that it adds."""
    names = ("model", "pre", "add_bos_token", "add_eos_token", "add_space_prefix")
    found = {name: values[_TOKENIZER + name] for name in names if _TOKENIZER + name in values}
    for name in ("tokens", "merges"):
        array = values.get(_TOKENIZER + name)
        if array is not None:
            found[name] = array.count if isinstance(array, LongArray) else len(array)
    return found


def _special_tokens(file: GgufFile) -> dict[str, SpecialToken]:
    """Role -> special token, from every tokenizer.ggml.ROLE_token_id."""
    end = "_token_id"
    ids = {
        key.removeprefix(_TOKENIZER).removesuffix(end): number
        for key, number in file.metadata.items()
        if key.startswith(_TOKENIZER) and key.endswith(end)
    }
    tokens = (file.array(_TOKENIZER + "tokens") or []) if ids else []
    return {role: SpecialToken(number, _item(tokens, number)) for role, number in ids.items()}


def _item(items: Sequence[str], number: int) -> str | None:
    return items[number] if 0 <= number < len(items) else None


def _lineage(values: Mapping[str, Any]) -> dict[str, Any]:
    """The file's origin: edgetune's keys, and the names of bases."""
    starts = ("edgetune.", "general.base_model.", "general.dataset.", "quantize.imatrix.")
    return {key: value for key, value in values.items() if key.startswith(starts) and key != CHECKSUMS}


def _lora(values: Mapping[str, Any], tensors: Sequence[StoredTensor]) -> dict[str, Any]:
    """A LoRA's alpha, ranks, and number of matrices. A is (rank, inputs)."""
    downs = [tensor for tensor in tensors if tensor.name.endswith(".lora_a")]
    return {
        "type": values.get("adapter.type"),
        "alpha": values.get("adapter.lora.alpha"),
        "ranks": sorted({tensor.shape[-2] for tensor in downs}),
        "modules": len(downs),
    }


def _imatrix(values: Mapping[str, Any], tensors: Sequence[StoredTensor]) -> dict[str, Any]:
    """An importance matrix's data, chunks, tokens per chunk, and number of matrices."""
    return {
        "datasets": values.get("imatrix.datasets"),
        "chunks": values.get("imatrix.chunk_count"),
        "chunk_tokens": values.get("imatrix.chunk_size"),
        "matrices": sum(tensor.name.endswith(".in_sum2") for tensor in tensors),
    }


def _grouped(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        group, _, rest = key.partition(".")
        groups.setdefault(group, {})[rest or group] = value
    return groups
