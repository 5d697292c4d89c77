"""A checksum of every tensor's bytes, which export writes into the file, to show later whether they are the same.

llama.cpp computes with whatever bytes a file holds: a damaged one opens, and answers nonsense. The checksums lie in the
metadata as an array of "NAME TYPE CRC"; other programs that quantize or split a file keep it, so that a tensor of
another type than it says has been written by one of them since, and tells nothing about damage.
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

_DIGITS = 8
_STEP_BYTES = 2**22
"""So much of a tensor is read at once; Python lets other threads work meanwhile."""


class Checksum:
    """The CRC-32 of bytes that come one after another, as in zip and PNG files.

    It finds damage, in a fifth of the time that a cryptographic hash takes. It does not keep anybody from changing a
    file.
    """

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: memoryview) -> None:
        """Take in more bytes."""
        self._value = zlib.crc32(data, self._value)

    def __str__(self) -> str:
        return f"{self._value:0{_DIGITS}x}"


@dataclass(frozen=True)
class ChecksumReport:
    """How many tensors are as export wrote them, which differ, and how many another program has written since."""

    same: int
    differing: tuple[str, ...]
    rewritten: int


def reserve_checksums(writer: GGUFWriter, types: Mapping[str, str]) -> None:
    """Write the array with zeros; `types` gives the tensors' types by name. `store_checksums` fills them in."""
    if types:
        writer.add_array(KEY, [_entry(name, kind, "0" * _DIGITS) for name, kind in types.items()])


def store_checksums(file: Path, checksums: Mapping[str, Checksum] | None = None) -> None:
    """Put them into the header of a whole file that has room for them, computed from the file where none are given."""
    opened = GgufFile(file)
    if checksums is None:
        checksums = {name: _checksum(opened, tensor) for name, tensor in opened.tensors.items()}
    if KEY not in opened.entries:
        return
    filled = []
    for said in opened.array(KEY) or ():
        name, kind, _ = said.split(" ")
        text = _entry(name, kind, str(checksums[name])).encode()
        filled.append(len(text).to_bytes(8, "little") + text)
    with file.open("r+b") as stream:
        stream.seek(opened.entries[KEY].value)
        stream.write(b"".join(filled))


def compare_checksums(file: GgufFile) -> ChecksumReport | None:
    """Read every tensor and compare. None for a file that holds no checksums."""
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
            elif str(_checksum(file, tensor)) == value:
                same += 1
            else:
                differing.append(tensor.name)
            bar.advance(tensor.nbytes / 1e6, tensor.name)
    return ChecksumReport(same, tuple(differing), rewritten)


def require_checksums(file: GgufFile) -> ChecksumReport | None:
    """The same for a file whose tensors must be as they were written.

    Raises VerificationFailed naming a tensor that is not, unless another program has written the file since.
    """
    found = compare_checksums(file)
    if found is not None and found.differing and not found.rewritten:
        more = f" (and {len(found.differing) - 1} more tensors)" if found.differing[1:] else ""
        raise VerificationFailed(
            f"is damaged: {found.differing[0]}{more} is not the bytes that export wrote",
            where=file.path,
            remedy="copy or export it again; if another program changed it on purpose, its checksums no longer count",
        )
    return found


def type_name(kind: int) -> str:
    """The name of a GGML type, for people; its number where the gguf package does not know it."""
    from gguf.constants import GGMLQuantizationType

    try:
        return GGMLQuantizationType(kind).name
    except ValueError:
        return f"type {kind}"


def _entry(name: str, kind: str, value: str) -> str:
    return f"{name} {kind} {value}"


def _checksum(file: GgufFile, tensor: StoredTensor) -> Checksum:
    checksum = Checksum()
    data: memoryview = file.data(tensor.name).reshape(-1).data
    for start in range(0, tensor.nbytes, _STEP_BYTES):
        checksum.update(data[start : start + _STEP_BYTES])
    file.release(tensor.name)
    return checksum
