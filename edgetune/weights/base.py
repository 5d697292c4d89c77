"""The tensors of a base model under Hugging Face's names, read by rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgetune import events
from edgetune.errors import ModelError
from edgetune.models.checkpoint import find_checkpoint
from edgetune.models.config import ModelConfig
from edgetune.models.gguf_file import GgufFile
from edgetune.models.locate import ModelFiles
from edgetune.models.safetensors_file import SafetensorsFile
from edgetune.weights.whole_tensors import WholeTensors

if TYPE_CHECKING:
    import numpy as np

_NOT_WEIGHTS = (".rotary_emb.inv_freq", ".attn.masked_bias")
"""Buffers in old checkpoints, which Transformers computes itself."""

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The types of weights, by safetensors' names."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor that was not read yet: its name in Hugging Face's layout, shape, and stored type, one of ITEM_BYTES."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def widest_dtype(tensors: Iterable[TensorInfo]) -> str:
    """The type of all matrices; F32 where they differ."""
    found = {info.dtype for info in tensors if len(info.shape) > 1}
    return found.pop() if len(found) == 1 else "F32"


class BaseTensors(Protocol):
    """A base model's tensors, in a stable order. Several threads may read at once."""

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """By name, in file order."""

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) in the stored type (BF16 as uint16), read-only."""

    def release(self, name: str, start: int, stop: int) -> None:
        """Release the memory of these rows."""


def renamed(base: BaseTensors, stored: Mapping[str, str]) -> BaseTensors:
    """`base` with other names. `stored` maps each of them to the name in `base`."""
    return base if all(name == own for name, own in stored.items()) else _Renamed(base, stored)


def open_base(files: ModelFiles, config: ModelConfig) -> BaseTensors:
    """Open a safetensors folder or a GGUF file without reading its tensors. `config` is the model's (`read_config`).

    Raises ModelError when a file is missing or truncated, when index and files disagree, and when the weights are
    pickled or quantized.
    """
    if files.gguf is not None:
        return _GgufBase(GgufFile(files.gguf), config)
    return _SafetensorsBase(files.folder)


class _Renamed:
    def __init__(self, base: BaseTensors, stored: Mapping[str, str]) -> None:
        self._base = base
        self._stored = stored
        self.tensors = {name: replace(base.tensors[own], name=name) for name, own in stored.items()}

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self._base.rows(self._stored[name], start, stop)

    def release(self, name: str, start: int, stop: int) -> None:
        self._base.release(self._stored[name], start, stop)


class _GgufBase:
    """Dequantized to float32; by rows where the file has the same order, otherwise whole."""

    def __init__(self, file: GgufFile, config: ModelConfig) -> None:
        from edgetune.models.gguf_tensors import open_gguf_tensors

        self._stored = open_gguf_tensors(file, config.in_transformers)
        self.tensors = {name: TensorInfo(name, shape, "F32") for name, shape in self._stored.shapes.items()}
        self._whole = WholeTensors(lambda name: {name: self._stored.load(name)})

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        if self._stored.by_rows(name):
            return self._stored.load(name, start, stop)
        return self._whole.rows(name, start, stop)

    def release(self, name: str, start: int, stop: int) -> None:
        self._whole.release(name, start, stop)


class _SafetensorsBase:
    def __init__(self, folder: Path) -> None:
        self._shards: dict[str, SafetensorsFile] = {}
        self.tensors: dict[str, TensorInfo] = {}
        checkpoint = find_checkpoint(folder)
        if checkpoint.unread is not None:
            events.warn(
                f"{folder} holds its weights twice: {checkpoint.files[0].name} is read, as in Transformers, and the "
                f"shards of {checkpoint.unread.name} are not"
            )
        for file in checkpoint.files:
            shard = SafetensorsFile(file)
            if checkpoint.index is not None:
                _check_shard(shard, checkpoint.expected[file], checkpoint.index)
            self._add(shard)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self._shards[name].rows(name, start, stop)

    def release(self, name: str, start: int, stop: int) -> None:
        self._shards[name].release(name, start, stop)

    def _add(self, shard: SafetensorsFile) -> None:
        for name in sorted(shard.tensors, key=_natural):
            if name.endswith(_NOT_WEIGHTS):
                continue
            self._shards[name] = shard
            self.tensors[name] = _described(shard, name)


def _check_shard(shard: SafetensorsFile, expected: frozenset[str], index: Path) -> None:
    names = frozenset(shard.tensors)
    if names != expected:
        lost, extra = sorted(expected - names), sorted(names - expected)
        what = f"lacks {lost[0]}, which {index.name} lists" if lost else f"has {extra[0]}, which {index.name} lacks"
        raise ModelError(what, where=shard.path, remedy="index and shards have different versions; download both again")


def _described(shard: SafetensorsFile, name: str) -> TensorInfo:
    entry = shard.tensors[name]
    if entry.dtype not in ITEM_BYTES:
        raise ModelError(
            f"the weights are quantized ({name} is {entry.dtype})",
            where=shard.path,
            remedy="give the unquantized model with --base MODEL",
        )
    return TensorInfo(name, entry.shape, entry.dtype)


def _natural(name: str) -> list[tuple[int, str]]:
    """Layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
