"""The entries of a GGUF header as stretches of bytes: counted and copied without being understood.

GgufFile reads the same header for its values. Here an entry keeps its type and its bytes, which a file needs that is to
say the same as another one.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STRING, ARRAY = 8, 9
"""GGUF's numbers of the two kinds of value that have no fixed size (gguf_type in ggml/include/gguf.h)."""
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The kinds of fixed size, as the struct module writes them."""

_FIRST_ENTRY = 24
"""Behind the magic, the version and two counts."""
_LENGTH = struct.Struct("<Q")
_KIND = struct.Struct("<I")


@dataclass(frozen=True)
class HeaderEntry:
    """One key with its value. For an array, `kind` is that of its items and `count` how many there are.

    `content` is the entry as it stands in the file from byte `start` on, `value_start` where in it the value (or the
    first item) begins.
    """

    key: str
    kind: int
    count: int | None
    content: bytes
    value_start: int
    start: int

    def first_items(self, limit: int) -> list[Any]:
        """The first items of an array, at most `limit`."""
        count = min(self.count or 0, limit)
        if self.kind != STRING:
            return list(struct.unpack_from(f"<{count}{FORMATS[self.kind]}", self.content, self.value_start))
        items, position = [], self.value_start
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(self.content, position)
            items.append(self.content[position + 8 : position + 8 + length].decode("utf-8", "replace"))
            position += 8 + length
        return items


def read_entries(path: Path) -> list[HeaderEntry]:
    """Every entry of the header, in the file's order. The file is one that GgufFile has found whole."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        (count,) = _LENGTH.unpack_from(content, 16)
        entries = []
        position = _FIRST_ENTRY
        for _ in range(count):
            entry = _read_entry(content, position)
            position += len(entry.content)
            entries.append(entry)
    return entries


def _read_entry(content: mmap.mmap, start: int) -> HeaderEntry:
    (length,) = _LENGTH.unpack_from(content, start)
    key_end = start + 8 + length
    key = content[start + 8 : key_end].decode("utf-8", "replace")
    (kind,) = _KIND.unpack_from(content, key_end)
    value, count = key_end + 4, None
    if kind == ARRAY:
        (kind,) = _KIND.unpack_from(content, value)
        (count,) = _LENGTH.unpack_from(content, value + 4)
        value += 12
    end = _end_of(content, kind, 1 if count is None else count, value)
    return HeaderEntry(key, kind, count, content[start:end], value - start, start)


def _end_of(content: mmap.mmap, kind: int, count: int, position: int) -> int:
    if kind != STRING:
        return position + count * struct.calcsize("<" + FORMATS[kind])
    read = _LENGTH.unpack_from
    for _ in range(count):
        position += 8 + read(content, position)[0]
    return position
