"""The tensors of a base model under Hugging Face's names, each read when it is asked for and then forgotten."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgetune.errors import ModelError
from edgetune.models.gguf_file import GgufFile
from edgetune.models.locate import ModelFiles

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_NOT_WEIGHTS = (".rotary_emb.inv_freq", ".attn.masked_bias")
"""Buffers that old checkpoints carry and that Transformers computes itself."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor before it is read: its name in Hugging Face's layout, its shape, and the type it is stored in."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        count = self.dtype.itemsize
        for length in self.shape:
            count *= length
        return count


class BaseTensors(Protocol):
    """A base model's tensors, in a stable order."""

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """By name, in file order."""

    def load(self, name: str) -> torch.Tensor:
        """Read one tensor into memory."""


def open_base(files: ModelFiles, config: PretrainedConfig) -> BaseTensors:
    """Open a safetensors folder or a GGUF file without reading its tensors. `config` is the model's (`load_config`).

    Raises ModelError naming the file when one is missing or truncated, when index and files disagree, when the weights
    are a pickle, or when they are stored quantized.
    """
    if files.gguf is not None:
        return _GgufBase(GgufFile(files.gguf), config)
    return _SafetensorsBase(files.folder)


class _GgufBase:
    def __init__(self, file: GgufFile, config: PretrainedConfig) -> None:
        import torch

        from edgetune.models.gguf_tensors import GgufTensors

        self._stored = GgufTensors(file, config)
        self.tensors = {name: TensorInfo(name, shape, torch.float32) for name, shape in self._stored.shapes.items()}

    def load(self, name: str) -> torch.Tensor:
        return self._stored.load(name)


class _SafetensorsBase:
    def __init__(self, folder: Path) -> None:
        self._shards: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        index = folder / _INDEX
        if index.is_file():
            shard_of = _read_index(index)
            for shard in sorted(set(shard_of.values())):
                expected = {name for name, place in shard_of.items() if place == shard}
                self._add(folder / shard, expected, index)
        elif (folder / _SINGLE).is_file():
            self._add(folder / _SINGLE, None, index)
        else:
            raise _no_safetensors(folder)

    def load(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._shards[name].get_tensor(name)
        return tensor

    def _add(self, file: Path, expected: set[str] | None, index: Path) -> None:
        if not file.is_file():
            raise ModelError(
                f"this shard is missing, though {index.name} lists it", where=file, remedy="download the model again"
            )
        shard = open_safetensors(file)
        names = set(shard.keys())
        if expected is not None and names != expected:
            lost, extra = sorted(expected - names), sorted(names - expected)
            what = f"lacks {lost[0]}, which" if lost else f"holds {extra[0]}, which"
            says = f"{index.name} lists in it" if lost else f"{index.name} does not list in it"
            raise ModelError(f"{what} {says}", where=file, remedy="index and shards are of different versions")
        for name in sorted(names, key=_natural):
            if name.endswith(_NOT_WEIGHTS):
                continue
            self._shards[name] = shard
            self.tensors[name] = _described(shard, name, file)


def open_safetensors(file: Path) -> Any:
    """Map a safetensors file (safetensors.safe_open). Raises ModelError when it is truncated or no safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as problem:
        raise ModelError(
            f"is truncated or not a safetensors file ({problem})", where=file, remedy="copy or download it again"
        ) from problem


def _described(shard: Any, name: str, file: Path) -> TensorInfo:
    import torch

    dtypes = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    view = shard.get_slice(name)
    kind = view.get_dtype()
    if kind not in dtypes:
        raise ModelError(
            f"the weights are stored quantized ({name} is {kind})",
            where=file,
            remedy="give the unquantized model with --base MODEL",
        )
    return TensorInfo(name, tuple(view.get_shape()), dtypes[kind])


def _read_index(index: Path) -> dict[str, str]:
    try:
        shard_of = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as problem:
        raise ModelError(f"is not a safetensors index ({problem!r})", where=index) from problem
    if not isinstance(shard_of, dict) or any(Path(str(shard)).name != shard for shard in shard_of.values()):
        raise ModelError("its weight_map must name files of this folder", where=index)
    return shard_of


def _no_safetensors(folder: Path) -> ModelError:
    if list(folder.glob("pytorch_model*.bin")):
        return ModelError(
            "holds its weights as pickles (pytorch_model.bin), which can run code when they are opened",
            where=folder,
            remedy="if you trust it, load it with Transformers and call save_pretrained: that writes safetensors",
        )
    return ModelError(f"has neither {_SINGLE} nor {_INDEX}", where=folder, remedy="download the model's weights")


def _natural(name: str) -> list[tuple[int, str]]:
    """Layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
