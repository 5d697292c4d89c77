"""Reads a safetensors file as mapped memory, without torch. Only this module knows the format.

The format: https://huggingface.co/docs/safetensors. The package's own reader copies every tensor and has no NumPy type
for BF16. Here the array is the file: rows of a large matrix take no memory beyond their pages, which can be released.
"""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import ModelError
from edgetune.models.mapped import release_pages

if TYPE_CHECKING:
    import numpy as np

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

_NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "U64": "<u8",
    "I32": "<i4",
    "U32": "<u4",
    "I16": "<i2",
    "U16": "<u2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
    "F8_E8M0": "u1",
}
"""Types that NumPy lacks are read as unsigned integers of the same width."""


@dataclass(frozen=True)
class SafetensorsEntry:
    """A tensor: its type by the format's name, its shape, and where its bytes start in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; of the whole tensor when it has no dimensions."""
        return math.prod(self.shape[1:]) * int(_NUMPY[self.dtype][-1].replace("?", "1"))


class SafetensorsFile:
    """An open safetensors file, which has the length that its header says.

    `tensors` is by name, in the header's order. Raises ModelError when the file is missing, truncated, no safetensors
    file, or has a tensor of an unknown type.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = _map(path)
        self.tensors: dict[str, SafetensorsEntry] = self._read_header()

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows [start, stop) of a tensor, all of them by default; BF16 as uint16. Read-only, usually the file itself.

        An unaligned tensor is copied, because compiled loops need alignment.
        """
        import numpy as np

        entry = self.tensors[name]
        lengths = entry.shape or (1,)
        stop = lengths[0] if stop is None else stop
        if not 0 <= start <= stop <= lengths[0]:  # else the array would have the bytes of another tensor
            raise IndexError(f"{self.path}: {name} has {lengths[0]} rows, not {start} to {stop}")
        kind = np.dtype(_NUMPY[entry.dtype])
        place = entry.start + start * entry.row_bytes
        count = (stop - start) * entry.row_bytes // kind.itemsize
        array = np.frombuffer(self._content, kind, count, place) if count else np.empty(0, kind)
        if not array.flags.aligned:
            array = array.copy()
        return array.reshape((stop - start, *entry.shape[1:]) if entry.shape else ())

    def release(self, name: str, start: int = 0, stop: int | None = None) -> None:
        """Release the memory that reading these rows took. They can still be read again."""
        entry = self.tensors[name]
        stop = (entry.shape or (1,))[0] if stop is None else stop
        release_pages(self._content, entry.start + start * entry.row_bytes, entry.start + stop * entry.row_bytes)

    def _read_header(self) -> dict[str, SafetensorsEntry]:
        if len(self._content) < _LENGTH_BYTES:
            raise _damaged(self.path, "it is shorter than a header")
        length = int.from_bytes(self._content[:_LENGTH_BYTES], "little")
        data = _LENGTH_BYTES + length
        if length > _MAX_HEADER_BYTES or data > len(self._content):
            raise _damaged(self.path, f"its header would take {length:,} bytes of a file of {len(self._content):,}")
        try:
            header = json.loads(self._content[_LENGTH_BYTES:data])
            header.pop("__metadata__", None)
            tensors = {name: self._entry(name, fields, data) for name, fields in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise _damaged(self.path, f"its header cannot be read: {problem!r}") from problem
        end = max((entry.start + _nbytes(entry) for entry in tensors.values()), default=data)
        if end != len(self._content):
            raise _damaged(self.path, f"its tensors end at byte {end:,}, and the file has {len(self._content):,}")
        return tensors

    def _entry(self, name: str, fields: dict[str, Any], data: int) -> SafetensorsEntry:
        dtype, shape = fields["dtype"], tuple(fields["shape"])
        if dtype not in _NUMPY:
            raise ModelError(
                f"the tensor {name} has the type {dtype}, which edgetune does not know",
                where=self.path,
                remedy="give the model in float32, float16 or bfloat16",
            )
        start, end = fields["data_offsets"]
        if not all(isinstance(number, int) and number >= 0 for number in (*shape, start, end)):
            raise _damaged(self.path, f"the header's entry for {name} is not made of whole numbers")
        entry = SafetensorsEntry(dtype, shape, data + start)
        if end - start != _nbytes(entry):
            raise _damaged(self.path, f"{name} needs {_nbytes(entry):,} bytes and has {end - start:,}")
        return entry


def _nbytes(entry: SafetensorsEntry) -> int:
    return entry.row_bytes * (entry.shape[0] if entry.shape else 1)


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise _damaged(path, "it is empty") from None
    except OSError as problem:
        raise ModelError(f"cannot be read ({problem.strerror})", where=path) from problem


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"is truncated or not a safetensors file ({reason})", where=path, remedy="copy or download it again"
    )
