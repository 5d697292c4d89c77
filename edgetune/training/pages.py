"""Returns memory that a model no longer needs to the system at once. Only on Linux; elsewhere this does nothing."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress
from pathlib import Path

from torch import Tensor

Span = tuple[int, int]
"""From an address up to another."""

_MADV_DONTNEED = 4


def mapped_spans() -> list[Span]:
    """The address ranges of mapped files, such as safetensors that have the type of the loaded model."""
    spans = []
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            span, _, _, _, inode, *_ = line.split(maxsplit=5)
            if inode != "0":
                start, end = span.split("-")
                spans.append((int(start, 16), int(end, 16)))
    return spans


def forget_mapped(tensor: Tensor, spans: list[Span]) -> None:
    """Release the whole pages of `tensor`, which is not read any more, where it is part of a mapped file (`spans`).

    They would count as this process's memory until the last tensor of that file is released.
    """
    size = mmap.PAGESIZE
    begin = -(-tensor.data_ptr() // size) * size
    end = (tensor.data_ptr() + tensor.nbytes) // size * size
    if begin < end and any(first <= begin and end <= last for first, last in spans):
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)


def trim_heap() -> None:
    """Return freed heap memory of all threads to the system, where the C library (glibc) can."""
    if os.name == "posix":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
