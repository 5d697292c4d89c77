"""Reads a GGUF file: metadata, and tensors as mapped bytes. Only this file knows the format.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. llama.cpp finds the same faults, but reports them
in its own terms, and a truncated file is better refused before native code reads it. The gguf package's own reader
makes a view of every token, which takes seconds where this takes milliseconds.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import ModelError
from edgetune.models.mapped import release_pages

if TYPE_CHECKING:
    import numpy as np

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_ALIGNMENT_BYTES = 32
STRING, ARRAY = 8, 9
"""GGUF's numbers of the two kinds of value that have no fixed size (gguf_type in ggml/include/gguf.h)."""
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The kinds of fixed size, as the struct module writes them."""
_LENGTH = struct.Struct("<Q")

_MAKE_ONE = "`edgetune export` makes a GGUF out of a model"
_GET_AGAIN = "download or export it again"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a GGUF file. `shape` is rows first, as in torch; `kind` is its GGML type's number.

    `nbytes` is 0 for a kind that the gguf package does not know; llama.cpp may know it.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    nbytes: int


@dataclass(frozen=True)
class HeaderEntry:
    """A key with its value: the bytes [start, stop) of the file. The value, or an array's first item, is at `value`.

    For an array, `kind` is that of its items and `count` how many there are.
    """

    kind: int
    count: int | None
    start: int
    value: int
    stop: int


class GgufFile:
    """An open GGUF file, which is long enough for its tensors.

    Raises ModelError when it is missing, empty, no GGUF, of an unknown version, truncated, or has a damaged header.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        """Scalars and strings by key. `array` reads arrays, which can be long."""
        self.entries: dict[str, HeaderEntry] = {}
        """Every key, in the file's order."""
        self._content = _map(path)
        try:
            self.tensors = self._read_header(_Cursor(self._content, len(_MAGIC)))
        except (struct.error, EOFError):
            raise self._damaged("is truncated: the file ends inside its header") from None
        except _DamagedHeaderError as problem:
            raise self._damaged(f"is damaged: {problem}") from None
        self.expected_bytes = max((tensor.start + tensor.nbytes for tensor in self.tensors.values()), default=0)
        """The size that a file with these tensors has at least."""
        if self.expected_bytes > len(self._content):
            need, size = f"{self.expected_bytes:,}", f"{len(self._content):,}"
            raise self._damaged(f"is truncated: its tensors need {need} bytes, the file has {size}")

    def array(self, key: str, limit: int | None = None) -> list[Any] | None:
        """The array of metadata under `key`, or its first `limit` items; None when there is none."""
        entry = self.entries.get(key)
        if entry is None or entry.count is None:
            return None
        count = entry.count if limit is None else min(entry.count, limit)
        if entry.kind == STRING:
            cursor = _Cursor(self._content, entry.value)
            return [cursor.string() for _ in range(count)]
        return list(struct.unpack_from(f"<{count}{FORMATS[entry.kind]}", self._content, entry.value))

    def entry_bytes(self, key: str) -> bytes:
        """A key with its value, as the file has it."""
        entry = self.entries[key]
        return self._content[entry.start : entry.stop]

    def data(self, name: str) -> np.ndarray:
        """The stored bytes of a tensor, one row of bytes per row of the tensor, mapped and not copied."""
        import numpy as np

        tensor = self.tensors[name]
        if not tensor.nbytes:
            raise ModelError(
                f"the tensor {name} is of type {tensor.kind}, which this version of the gguf package does not know",
                where=self.path,
                remedy="run: pip install -U gguf",
            )
        rows = np.frombuffer(self._content, dtype=np.uint8, count=tensor.nbytes, offset=tensor.start)
        return rows.reshape(*tensor.shape[:-1], -1)

    def release(self, name: str) -> None:
        """Release the memory that reading a tensor took."""
        tensor = self.tensors[name]
        release_pages(self._content, tensor.start, tensor.start + tensor.nbytes)

    def _read_header(self, cursor: _Cursor) -> dict[str, StoredTensor]:
        version = cursor.number("I")
        if version not in _VERSIONS:
            raise ModelError(f"is a GGUF of version {version}; versions 2 and 3 are known", where=self.path)
        tensor_count, key_count = cursor.number("Q"), cursor.number("Q")
        for _ in range(key_count):
            self._read_entry(cursor)
        found = [_read_tensor(cursor) for _ in range(tensor_count)]
        alignment = self.metadata.get("general.alignment") or _ALIGNMENT_BYTES
        if not isinstance(alignment, int) or alignment < 1:
            raise _DamagedHeaderError(f"general.alignment is {alignment!r}")
        start = -(-cursor.position // alignment) * alignment
        return {
            name: StoredTensor(name, shape, kind, start + offset, _nbytes(name, shape, kind))
            for name, shape, kind, offset in found
        }

    def _read_entry(self, cursor: _Cursor) -> None:
        start, key, kind, count = cursor.position, cursor.string(), cursor.number("I"), None
        if kind == ARRAY:
            kind, count = cursor.number("I"), cursor.number("Q")
        value = cursor.position
        if count is None:
            self.metadata[key] = cursor.string() if kind == STRING else cursor.number(_scalar(kind))
        elif kind == STRING:
            cursor.skip_strings(count)
        else:
            cursor.skip(count * struct.calcsize("<" + _scalar(kind)))
        self.entries[key] = HeaderEntry(kind, count, start, value, cursor.position)

    def _damaged(self, what: str) -> ModelError:
        return ModelError(what, where=self.path, remedy=_GET_AGAIN)


class _DamagedHeaderError(Exception):
    """The header has a value that is invalid in a GGUF."""


class _Cursor:
    """Reads little-endian values one after another. Raises struct.error or EOFError at the end of the file."""

    def __init__(self, content: mmap.mmap, position: int) -> None:
        self._content, self.position = content, position

    def number(self, kind: str) -> Any:
        value = struct.unpack_from("<" + kind, self._content, self.position)[0]
        self.position += struct.calcsize("<" + kind)
        return value

    def string(self) -> str:
        length = self.number("Q")
        start = self.position
        self.skip(length)
        return self._content[start : self.position].decode("utf-8", "replace")

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > len(self._content):
            raise EOFError

    def skip_strings(self, count: int) -> None:
        """Vocabularies have hundreds of thousands, so this loop does as little as possible."""
        content, end, position, read = self._content, len(self._content), self.position, _LENGTH.unpack_from
        for _ in range(count):
            position += 8 + read(content, position)[0]
            if position > end:
                raise EOFError
        self.position = position


def _map(path: Path) -> mmap.mmap:
    if path.is_dir():
        raise ModelError("is a folder, where a GGUF file is needed", where=path, remedy=_MAKE_ONE)
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
            if not start:
                raise ModelError("is empty", where=path, remedy=_GET_AGAIN)
            if start != _MAGIC:
                raise ModelError(
                    f"is not a GGUF file: it starts with {start!r}, a GGUF with {_MAGIC!r}",
                    where=path,
                    remedy=_MAKE_ONE,
                )
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ModelError("there is no such file", where=path, remedy="`edgetune export` makes one") from None
    except OSError as problem:
        raise ModelError(f"cannot be read ({problem.strerror})", where=path) from None


def _read_tensor(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, dimensions = cursor.string(), cursor.number("I")
    if dimensions > _MAX_DIMENSIONS:
        raise _DamagedHeaderError(f"the tensor {name[:80]!r} has {dimensions} dimensions")
    lengths = [cursor.number("Q") for _ in range(dimensions)]
    return name, tuple(reversed(lengths)), cursor.number("I"), cursor.number("Q")


def _scalar(kind: int) -> str:
    if kind not in FORMATS:
        raise _DamagedHeaderError(f"it has a value of kind {kind}, which GGUF does not have")
    return FORMATS[kind]


def _nbytes(name: str, shape: tuple[int, ...], kind: int) -> int:
    from gguf.constants import GGML_QUANT_SIZES

    if kind not in GGML_QUANT_SIZES:
        return 0
    block_elements, block_bytes = GGML_QUANT_SIZES[kind]
    if shape and shape[-1] % block_elements:
        raise _DamagedHeaderError(
            f"the tensor {name} has rows of {shape[-1]} values, and its type stores blocks of {block_elements}"
        )
    return math.prod(shape) // block_elements * block_bytes
