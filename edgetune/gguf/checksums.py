"""A checksum of every tensor's bytes, which export writes into the file to detect damage later.

llama.cpp also runs a damaged file and produces nonsense. CRC-32, as in zip and PNG files, finds damage in a fifth of
the time of a cryptographic hash; it does not prevent intended changes. The metadata contain the checksums as an array
of "NAME TYPE CRC". Other programs that quantize or split a file keep this array. So if a tensor has another type than
the array says, another program has rewritten it, and its checksum does not apply.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.errors import VerificationFailed
from edgetune.models.gguf_file import GgufFile, StoredTensor

if TYPE_CHECKING:
    from gguf import GGUFWriter

KEY = "edgetune.checksums.crc32"

_STEP_BYTES = 2**22
"""Bytes of a tensor that are read at once; zlib releases Python's lock meanwhile."""


@dataclass(frozen=True)
class ChecksumReport:
    """The number of unchanged tensors, the names of changed ones, and the number that another program has rewritten."""

    same: int
    differing: tuple[str, ...]
    rewritten: int


def reserve_checksums(writer: GGUFWriter, types: Mapping[str, str]) -> None:
    """Write the array with zeros, which `store_checksums` replaces; `types` are the tensors' types by name."""
    if types:
        writer.add_array(KEY, [_entry(name, kind, _hexadecimal(0)) for name, kind in types.items()])


def store_checksums(file: Path, checksums: Mapping[str, int] | None = None) -> None:
    """Write checksums into a header with a reserved array; they are computed from the file if none are given."""
    opened = GgufFile(file)
    if checksums is None:
        checksums = {name: _checksum(opened, tensor) for name, tensor in opened.tensors.items()}
    if KEY not in opened.entries:
        return
    filled = []
    for said in opened.array(KEY) or ():
        name, kind, _ = said.split(" ")
        text = _entry(name, kind, _hexadecimal(checksums[name])).encode()
        filled.append(len(text).to_bytes(8, "little") + text)
    with file.open("r+b") as stream:
        stream.seek(opened.entries[KEY].value)
        stream.write(b"".join(filled))


def compare_checksums(file: GgufFile) -> ChecksumReport | None:
    """Compare every tensor with its checksum. None for a file without checksums."""
    recorded = file.array(KEY)
    if recorded is None:
        return None
    parts = [str(entry).partition(" ") for entry in recorded]
    said = {name: rest.partition(" ")[::2] for name, _, rest in parts}
    same, differing, rewritten = 0, [], len(said.keys() - file.tensors.keys())
    total = sum(tensor.nbytes for tensor in file.tensors.values())
    with events.progress("checking", total / 1e6, "MB") as bar:
        for tensor in file.tensors.values():
            kind, value = said.get(tensor.name, ("", ""))
            if kind != type_name(tensor.kind):
                rewritten += 1
            elif _hexadecimal(_checksum(file, tensor)) == value:
                same += 1
            else:
                differing.append(tensor.name)
            bar.advance(tensor.nbytes / 1e6, tensor.name)
    return ChecksumReport(same, tuple(differing), rewritten)


def require_checksums(file: GgufFile) -> ChecksumReport | None:
    """The same, but raise VerificationFailed naming a changed tensor, unless another program has rewritten the file."""
    found = compare_checksums(file)
    if found is not None and found.differing and not found.rewritten:
        more = f" (and {len(found.differing) - 1} more tensors)" if found.differing[1:] else ""
        raise VerificationFailed(
            f"is damaged: the bytes of {found.differing[0]}{more} have changed since export",
            where=file.path,
            remedy="copy or export it again; if another program changed it on purpose, the checksums do not apply",
        )
    return found


def type_name(kind: int) -> str:
    """The name of a GGML type; its number if the gguf package does not know it."""
    from gguf.constants import GGMLQuantizationType

    try:
        return GGMLQuantizationType(kind).name
    except ValueError:
        return f"type {kind}"


def _entry(name: str, kind: str, value: str) -> str:
    return f"{name} {kind} {value}"


def _hexadecimal(checksum: int) -> str:
    return f"{checksum:08x}"


def _checksum(file: GgufFile, tensor: StoredTensor) -> int:
    checksum = 0
    data: memoryview = file.data(tensor.name).reshape(-1).data
    for start in range(0, tensor.nbytes, _STEP_BYTES):
        checksum = zlib.crc32(data[start : start + _STEP_BYTES], checksum)
    file.release(tensor.name)
    return checksum
