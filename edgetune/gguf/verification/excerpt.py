"""The leading blocks of a GGUF file as a smaller file, for a decode with little memory.

llama.cpp maps a whole file and reads every page, so a decode needs memory of the file's size. A model with fewer blocks
is enough to check whether the tensors fit together.
"""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edgetune.models.gguf_file import FORMATS, STRING, GgufFile, StoredTensor

_BLOCK = re.compile(r"^(?:enc\.|dec\.)?blk\.(\d+)\.")
_VERSION = 3
_ALIGNMENT_BYTES = 32
_PIECE_BYTES = 2**22

_BLOCK_COUNTS = ("block_count", "decoder_block_count")
_EXTRA_BLOCKS = "nextn_predict_layers"
"""How many of the last blocks predict further tokens. An excerpt has none of them."""


@dataclass(frozen=True)
class Excerpt:
    """What is kept of a file: the first `blocks` of its blocks, and all tensors that belong to no block."""

    blocks: int
    total_blocks: int
    tensors: Sequence[StoredTensor]


def plan_excerpt(file: GgufFile, bound_bytes: int) -> Excerpt | None:
    """As many leading blocks as fit into `bound_bytes` beside the other tensors, at least one.

    None where nothing can be left out: the file fits as it is, or has at most one block.
    """
    total = file.metadata.get(f"{file.metadata.get('general.architecture')}.block_count")
    sizes: dict[int, int] = {}
    for tensor in file.tensors.values():
        block = _block_of(tensor)
        sizes[block] = sizes.get(block, 0) + tensor.nbytes
    if file.expected_bytes <= bound_bytes or not isinstance(total, int) or max(sizes, default=-1) < 1:
        return None
    header = min(tensor.start for tensor in file.tensors.values())
    used = header + sizes.get(_OUTSIDE, 0) + sizes.get(0, 0)
    blocks = 1
    while blocks < total and used + sizes.get(blocks, 0) <= bound_bytes:
        used += sizes.get(blocks, 0)
        blocks += 1
    if blocks == total:
        return None
    kept = [tensor for tensor in file.tensors.values() if _block_of(tensor) < blocks]
    return Excerpt(blocks, total, kept)


@contextmanager
def open_excerpt(file: GgufFile, excerpt: Excerpt) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Write the excerpt into memory, or a temporary file where the system has no files in memory.

    Yields its path, and the descriptors that a child process must inherit for the path to mean something there.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("edgetune-excerpt")
        try:
            _write(file, excerpt, descriptor)
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(prefix="edgetune-", suffix=".gguf") as temporary:
            _write(file, excerpt, temporary.fileno())
            yield temporary.name, ()


_OUTSIDE = -1
"""The number of tensors that belong to no block."""


def _block_of(tensor: StoredTensor) -> int:
    found = _BLOCK.match(tensor.name)
    return int(found[1]) if found else _OUTSIDE


def _write(file: GgufFile, excerpt: Excerpt, descriptor: int) -> None:
    """The header with fewer blocks in it, then the tensors as they are."""
    entries = [_shorten(key, file, excerpt) for key in file.entries]
    alignment = file.metadata.get("general.alignment") or _ALIGNMENT_BYTES
    infos, offset = [], 0
    for tensor in excerpt.tensors:
        infos.append(_describe(tensor, offset))
        offset += -(-tensor.nbytes // alignment) * alignment
    head = b"GGUF" + struct.pack("<IQQ", _VERSION, len(infos), len(entries)) + b"".join([*entries, *infos])
    with open(descriptor, "wb", closefd=False) as out, file.path.open("rb") as source:
        out.write(head + bytes(-len(head) % alignment))
        for tensor in excerpt.tensors:
            source.seek(tensor.start)
            for done in range(0, tensor.nbytes, _PIECE_BYTES):
                out.write(source.read(min(_PIECE_BYTES, tensor.nbytes - done)))
            out.write(bytes(-tensor.nbytes % alignment))


def _shorten(key: str, file: GgufFile, excerpt: Excerpt) -> bytes:
    """The entry as it is to stand in the excerpt: counts of blocks lowered, lists with an item per block cut."""
    architecture = str(file.metadata.get("general.architecture"))
    name, entry = key.removeprefix(f"{architecture}."), file.entries[key]
    content = file.entry_bytes(key)
    head = content[: entry.value - entry.start]
    if name == key or entry.kind == STRING:
        return content
    if entry.count is None:
        blocks = {_EXTRA_BLOCKS: 0} | {count: min(excerpt.blocks, file.metadata[key]) for count in _BLOCK_COUNTS}
        return head + struct.pack("<" + FORMATS[entry.kind], blocks[name]) if name in blocks else content
    if entry.count == excerpt.total_blocks:
        items = content[len(head) :]
        kept = len(items) // entry.count * excerpt.blocks
        return head[:-8] + struct.pack("<Q", excerpt.blocks) + items[:kept]
    return content


def _describe(tensor: StoredTensor, offset: int) -> bytes:
    """The tensor's line in the header. GGUF writes the shape with the length of a row first."""
    name = tensor.name.encode()
    shape = tensor.shape[::-1]
    return struct.pack(f"<Q{len(name)}sI{len(shape)}QIQ", len(name), name, len(shape), *shape, tensor.kind, offset)
