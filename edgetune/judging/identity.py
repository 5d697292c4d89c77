"""Hashes by which two judgements are known to have answered the same question."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def hash_value(value: Any) -> str:
    """SHA-256 of a plain value, in hexadecimal: equal values have equal hashes on every machine."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hash_file(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
