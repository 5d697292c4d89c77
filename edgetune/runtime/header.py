"""The head of a GGUF file, checked in Python before native code reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgetune.models.gguf_file import GgufFile


@dataclass(frozen=True)
class Header:
    """What the head of a GGUF says."""

    architecture: str
    tensor_count: int
    expected_bytes: int
    """Size that the file must have for its tensors to be whole. Tensors of a type we do not know are left out."""


def read_header(path: Path) -> Header:
    """Read the head and check that the file is long enough for its tensors.

    Raises ModelError when the file is missing, empty, no GGUF, of an unknown version, damaged or truncated.
    """
    file = GgufFile(path)
    return Header(str(file.metadata.get("general.architecture", "")), len(file.tensors), file.expected_bytes)
