"""Reads the head of a GGUF file far enough to say in plain words what is wrong with it.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. llama.cpp finds the same faults, but reports them
in its own terms; and a file that is cut off inside its head is better refused before native code reads it.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from edgetune.errors import ModelError

_MAGIC = b"GGUF"
_KNOWN_VERSIONS = (2, 3)
_ALIGNMENT_BYTES = 32

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_DOWNLOAD_AGAIN = "download or export it again"


@dataclass(frozen=True)
class Header:
    """What the head of a GGUF says."""

    architecture: str
    tensor_count: int
    expected_bytes: int
    """Size that the file must have for its tensors to be whole. Tensors of a type we do not know are left out."""


def read_header(path: Path) -> Header:
    """Read the head and check that the file is long enough for its tensors.

    Raises ModelError when the file is missing, empty, no GGUF, of an unknown version, or truncated.
    """
    if path.is_dir():
        raise ModelError(
            "is a folder, where a GGUF file is needed",
            where=path,
            remedy="`edgetune export` makes a GGUF out of a model",
        )
    try:
        with path.open("rb") as file:
            start = file.read(4)
            _check_magic(start, path)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                header = _parse(content, path)
                size = len(content)
    except FileNotFoundError:
        raise ModelError("there is no such file", where=path, remedy="`edgetune export` makes one") from None
    except OSError as problem:
        raise ModelError(f"cannot be read ({problem.strerror})", where=path) from None
    if size < header.expected_bytes:
        raise ModelError(
            f"is truncated: its tensors need {header.expected_bytes:,} bytes, the file has {size:,}",
            where=path,
            remedy=_DOWNLOAD_AGAIN,
        )
    return header


def _check_magic(start: bytes, path: Path) -> None:
    if not start:
        raise ModelError("is empty", where=path, remedy=_DOWNLOAD_AGAIN)
    if start != _MAGIC:
        raise ModelError(
            f"is not a GGUF file: it starts with {start!r}, a GGUF with {_MAGIC!r}",
            where=path,
            remedy="`edgetune export` makes a GGUF out of a model",
        )


def _parse(content: mmap.mmap, path: Path) -> Header:
    cursor = _Cursor(content)
    try:
        cursor.skip(len(_MAGIC))
        version = cursor.read("I")
        if version not in _KNOWN_VERSIONS:
            raise ModelError(f"is a GGUF of version {version}; versions 2 and 3 are known", where=path)
        tensor_count, key_count = cursor.read("Q"), cursor.read("Q")
        architecture, alignment = "", _ALIGNMENT_BYTES
        for _ in range(key_count):
            key, kind = cursor.read_string(), cursor.read("I")
            if key == b"general.architecture" and kind == _STRING:
                architecture = cursor.read_string().decode("utf-8", "replace")
            elif key == b"general.alignment" and kind == 4:
                alignment = cursor.read("I") or _ALIGNMENT_BYTES
            else:
                cursor.skip_value(kind)
        end_of_data = max((_tensor_end(cursor) for _ in range(tensor_count)), default=0)
    except (struct.error, EOFError):
        raise ModelError("is truncated: the file ends inside its header", where=path, remedy=_DOWNLOAD_AGAIN) from None
    except _UnknownKindError as problem:
        raise ModelError(f"is damaged: {problem}", where=path, remedy=_DOWNLOAD_AGAIN) from None
    data_start = -(-cursor.position // alignment) * alignment if tensor_count else cursor.position
    return Header(architecture, tensor_count, data_start + end_of_data)


def _tensor_end(cursor: _Cursor) -> int:
    """Where the next tensor's bytes end, counted from the start of the data."""
    from gguf.constants import GGML_QUANT_SIZES

    cursor.read_string()
    elements = 1
    for _ in range(cursor.read("I")):
        elements *= cursor.read("Q")
    kind, offset = cursor.read("I"), cursor.read("Q")
    block_elements, block_bytes = GGML_QUANT_SIZES.get(kind, (1, 0))
    return offset + elements // block_elements * block_bytes


class _UnknownKindError(Exception):
    """A metadata value of a kind that GGUF does not have."""


class _Cursor:
    """Reads little-endian values one after another. Raises struct.error or EOFError at the end of the file."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self.position = content, 0

    def read(self, kind: str) -> int:
        value = struct.unpack_from("<" + kind, self._content, self.position)[0]
        self.position += struct.calcsize("<" + kind)
        return value

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > len(self._content):
            raise EOFError

    def read_string(self) -> bytes:
        length = self.read("Q")
        start = self.position
        self.skip(length)
        return self._content[start : self.position]

    def skip_value(self, kind: int) -> None:
        if kind in _SCALARS:
            self.skip(struct.calcsize("<" + _SCALARS[kind]))
        elif kind == _STRING:
            self.skip(self.read("Q"))
        elif kind == _ARRAY:
            self._skip_array(self.read("I"), self.read("Q"))
        else:
            raise _UnknownKindError(f"it holds a value of kind {kind}, which GGUF does not have")

    def _skip_array(self, kind: int, count: int) -> None:
        if kind in _SCALARS:
            self.skip(count * struct.calcsize("<" + _SCALARS[kind]))
        elif kind == _STRING:
            for _ in range(count):
                self.skip(self.read("Q"))
        else:
            raise _UnknownKindError(f"it holds an array of kind {kind}, which GGUF does not have")
