"""Hashes that identify a model, a question or a judgement."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgetune.errors import ModelError

SETTLED_SECONDS = 2.0
"""A file that was changed less than this before it was hashed is hashed again when it is asked for again: another
change within the clock's step (up to 2 s on FAT, some ms elsewhere) would leave the same times."""

_PART_OF_GGUF = re.compile(r"(?P<name>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf", re.IGNORECASE)
"""How llama.cpp names the parts of a GGUF that was split (llama_split_path)."""

_known: dict[tuple[int, ...], str] = {}


def hash_value(value: Any) -> str:
    """SHA-256 of a plain value, in hexadecimal: equal values have equal hashes on every machine."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hash_file(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal. Raises ModelError when it cannot be read.

    A process hashes a file once: two adapters on one base do not read it twice. A file is identified by its place on
    the disk, its size, and the times of its last changes, the second of which (ctime) cannot be set.
    """
    try:
        with file.open("rb") as stream:
            status = _status(stream.fileno())
            if status not in _known:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                settled = max(status[-2:]) < time.time_ns() - SETTLED_SECONDS * 1e9
                if not settled or _status(stream.fileno()) != status:
                    return digest
                _known[status] = digest
    except OSError as problem:
        raise ModelError(f"cannot be read ({problem.strerror})", where=file, remedy="check its permissions") from None
    return _known[status]


def _status(descriptor: int) -> tuple[int, ...]:
    found = os.fstat(descriptor)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def gguf_parts(file: Path) -> tuple[Path, ...]:
    """The files that llama.cpp reads when it opens this one: itself, and the other parts of a GGUF that was split."""
    named = _PART_OF_GGUF.fullmatch(file.name)
    if named is None:
        return (file,)
    parts = (
        file.with_name(f"{named['name']}-{part:05}-of-{named['parts']}.gguf")
        for part in range(1, int(named["parts"]) + 1)
    )
    return tuple(part for part in parts if part.is_file()) or (file,)


def hash_gguf(file: Path) -> str:
    """SHA-256 of a GGUF's bytes, wherever it lies; of a split one, over the hashes of its parts. Raises ModelError."""
    parts = gguf_parts(file)
    return hash_file(file) if len(parts) == 1 else hash_value([hash_file(part) for part in parts])


def versions_of(*packages: str) -> dict[str, str]:
    """The versions of those of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
