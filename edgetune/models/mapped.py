"""Letting go of a mapped file's pages, which count as memory until then."""

from __future__ import annotations

import mmap

_RELEASE_BYTES = 2**16
"""Linux brings in the pages around one that is read, this many bytes at a time."""


def release_pages(content: mmap.mmap, start: int, stop: int) -> None:
    """Let go of the bytes [start, stop) and of what was brought in around them. What is still read comes back."""
    first = start // _RELEASE_BYTES * _RELEASE_BYTES
    end = min(-(-stop // _RELEASE_BYTES) * _RELEASE_BYTES, len(content))
    if hasattr(mmap, "MADV_DONTNEED") and end > first:
        content.madvise(mmap.MADV_DONTNEED, first, end - first)
