"""Releases the pages of a mapped file, which count as memory until then."""

from __future__ import annotations

import mmap

_RELEASE_BYTES = 2**16
"""Linux reads the pages around one that is read, this many bytes at a time."""


def release_pages(content: mmap.mmap, start: int, stop: int) -> None:
    """Release the bytes [start, stop) and what was read around them. They can still be read again."""
    first = start // _RELEASE_BYTES * _RELEASE_BYTES
    end = min(-(-stop // _RELEASE_BYTES) * _RELEASE_BYTES, len(content))
    if hasattr(mmap, "MADV_DONTNEED") and end > first:
        content.madvise(mmap.MADV_DONTNEED, first, end - first)
