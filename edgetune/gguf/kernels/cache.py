"""Compiled kernels on the disk: one file per kernel, machine and version of sources and compilers.

Numba's own cache is not used: it loads Numba with all its types (half a second and 140 MB), and it does not detect
changes in modules that a kernel calls.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from edgetune.cache import cache_folder
from edgetune.gguf.kernels.machine import processor

_DIGEST_BYTES = 32


def cached(symbol: str) -> bytes | None:
    """The object code of a kernel; None if it is missing or damaged."""
    try:
        content = _file(symbol).read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def keep(symbol: str, code: bytes) -> None:
    """Store object code. If the folder cannot be written, the kernel is compiled again next time."""
    file = _file(symbol)
    staged = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(hashlib.sha256(code).digest() + code)
        staged.replace(file)
    except OSError:
        with suppress(OSError):
            staged.unlink()


def _file(symbol: str) -> Path:
    return cache_folder() / "kernels" / f"{symbol}-{_identity()}.o"


@lru_cache(maxsize=1)
def _identity() -> str:
    """A hash of the sources, the compilers' versions and the processor."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    versions = (importlib.metadata.version(package) for package in ("numba", "llvmlite"))
    digest.update("\0".join((*versions, processor())).encode())
    return digest.hexdigest()[:32]
