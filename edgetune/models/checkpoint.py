"""Finds the files of a model's folder that hold its weights: those that Transformers reads.

Many folders hold their weights twice: as one file and as shards, or beside the files of another tool
(consolidated.safetensors). The rule is that of _get_resolved_checkpoint_files in transformers/modeling_utils.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetune.errors import ModelError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """Safetensors `files` in the order in which they are read.

    For shards, `index` is the file that lists them, and `expected` the tensors that it lists in each. `unread` is the
    index of further shards, which are not read.
    """

    files: tuple[Path, ...]
    index: Path | None = None
    expected: Mapping[Path, frozenset[str]] = field(default_factory=dict)
    unread: Path | None = None


def find_checkpoint(folder: Path) -> Checkpoint:
    """The weights of a folder. Only an index is opened.

    Raises ModelError when there are none, when they are pickles, when the index cannot be read or a shard is missing.
    """
    named = _named_in_config(folder)
    if named is not None:
        return _sharded(named) if named.name.endswith(".index.json") else Checkpoint((named,))
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        return Checkpoint((single,), unread=index if index.is_file() and _is_whole(index) else None)
    if index.is_file():
        return _sharded(index)
    raise _no_safetensors(folder)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files of `find_checkpoint`, or an empty tuple where it raises."""
    try:
        return find_checkpoint(folder).files
    except ModelError:
        return ()


def _named_in_config(folder: Path) -> Path | None:
    """config.json may name the file (transformers_weights)."""
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("transformers_weights")
    except (OSError, ValueError, AttributeError):
        return None
    if said is None:
        return None
    file = folder / str(said)
    inside = file.resolve().is_relative_to(folder.resolve()) or file.parent == folder
    if not inside or not str(said).endswith((".safetensors", ".safetensors.index.json")):
        raise ModelError(
            f"transformers_weights is {said!r}; it must name a safetensors file or index in this folder",
            where=folder / "config.json",
        )
    if not file.is_file():
        raise ModelError(f"transformers_weights names {said}, which does not exist", where=folder / "config.json")
    return file


def _sharded(index: Path) -> Checkpoint:
    shard_of = _read_index(index)
    files = {
        index.parent / shard: frozenset(name for name, place in shard_of.items() if place == shard)
        for shard in sorted(set(shard_of.values()))
    }
    for file in files:
        if not file.is_file():
            raise ModelError(
                f"this shard is missing, and {index.name} lists it", where=file, remedy="download the model again"
            )
    return Checkpoint(tuple(files), index, files)


def _is_whole(index: Path) -> bool:
    """True when all shards exist. Saving in one file leaves the index of an earlier saving behind."""
    try:
        return bool(_sharded(index).files)
    except ModelError:
        return False


def _read_index(index: Path) -> dict[str, str]:
    try:
        shard_of: Any = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ModelError(f"is not a safetensors index ({problem!r})", where=index) from problem
    if not isinstance(shard_of, dict) or any(Path(str(shard)).name != shard for shard in shard_of.values()):
        raise ModelError("its weight_map must name files in this folder", where=index)
    return shard_of


def _no_safetensors(folder: Path) -> ModelError:
    if list(folder.glob("pytorch_model*.bin")):
        return ModelError(
            "holds its weights as pickles (pytorch_model.bin), which can run code when they are loaded",
            where=folder,
            remedy="if you trust it, load it with Transformers and call save_pretrained: that writes safetensors",
        )
    return ModelError(f"has neither {SINGLE} nor {INDEX}", where=folder, remedy="download the model's weights")
