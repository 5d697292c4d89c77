"""Reads a GGUF file: its scalar metadata, and its tensors as mapped bytes. Long arrays (the vocabulary) are skipped.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The gguf package's own reader makes a view of
every token, which takes seconds for a large vocabulary.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.errors import ModelError

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a GGUF file. `shape` is rows first, as in torch; `kind` is its GGML type's number."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    nbytes: int


class GgufFile:
    """An open GGUF file. Raises ModelError when it is not one, or is truncated."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        """Scalars and strings by key; arrays are left out."""
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as problem:
            raise ModelError(f"cannot be read ({problem})", where=path) from problem
        if self._bytes[:4] != b"GGUF":
            raise ModelError(f"is not a GGUF file (it starts with {self._bytes[:4]!r})", where=path)
        self._position = 4
        try:
            self.tensors = self._read_header()
        except (struct.error, IndexError, KeyError, UnicodeDecodeError) as problem:
            raise self._damaged("ends or breaks off inside its header") from problem
        end = max((tensor.start + tensor.nbytes for tensor in self.tensors.values()), default=0)
        if end > len(self._bytes):
            raise self._damaged(f"is truncated: its tensors need {end:,} bytes, the file has {len(self._bytes):,}")

    def data(self, name: str) -> np.ndarray:
        """The stored bytes of a tensor, one row of bytes per row of the tensor, mapped and not copied."""
        tensor = self.tensors[name]
        rows = np.frombuffer(self._bytes, dtype=np.uint8, count=tensor.nbytes, offset=tensor.start)
        return rows.reshape(*tensor.shape[:-1], -1)

    def _read_header(self) -> dict[str, StoredTensor]:
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ModelError(f"is a GGUF of version {version}; versions 2 and 3 are known", where=self.path)
        tensor_count, key_count = self._number("<Q"), self._number("<Q")
        for _ in range(key_count):
            key = self._string()
            kind = self._number("<I")
            if kind == _ARRAY:
                self._skip_array()
            else:
                self.metadata[key] = self._string() if kind == _STRING else self._number(_SCALARS[kind])
        entries = [self._tensor_entry() for _ in range(tensor_count)]
        alignment = int(self.metadata.get("general.alignment", 32))
        start = -(-self._position // alignment) * alignment
        return {name: StoredTensor(name, shape, kind, start + offset, _nbytes(shape, kind))
                for name, shape, kind, offset in entries}  # fmt: skip

    def _tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        lengths = [int(self._number("<Q")) for _ in range(self._number("<I"))]
        return name, tuple(reversed(lengths)), int(self._number("<I")), int(self._number("<Q"))

    def _skip_array(self) -> None:
        kind, count = self._number("<I"), self._number("<Q")
        if kind == _STRING:
            for _ in range(count):
                self._position += 8 + struct.unpack_from("<Q", self._bytes, self._position)[0]
        else:
            self._position += count * struct.calcsize(_SCALARS[kind])

    def _number(self, form: str) -> Any:
        value = struct.unpack_from(form, self._bytes, self._position)[0]
        self._position += struct.calcsize(form)
        return value

    def _string(self) -> str:
        length = self._number("<Q")
        start, self._position = self._position, self._position + length
        if self._position > len(self._bytes):
            raise IndexError
        return self._bytes[start : self._position].decode("utf-8")

    def _damaged(self, what: str) -> ModelError:
        return ModelError(what, where=self.path, remedy="copy or download it again")


def _nbytes(shape: tuple[int, ...], kind: int) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block_size, type_size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    return int(np.prod(shape, dtype=np.int64)) // block_size * type_size
