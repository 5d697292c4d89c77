"""Importance matrices: mean squared activations per input column of a weight, by which quantizers weigh errors.

The files are those of llama.cpp's tools/imatrix: a GGUF of sums and counts, or the older binary format (.dat), which is
read but not written. The quantizer's weights are bit-identical to those of tools/quantize, in float32.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgetune.errors import ModelError
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.models.gguf_file import GgufFile
from edgetune.outputs import staged_file

if TYPE_CHECKING:
    from gguf import GGUFWriter

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MAX_NAME_BYTES = 1024
_EMBEDDING = "token_embd.weight"
_REMEDY = "give a file of llama.cpp's llama-imatrix, or measure one with --calibrate DATA"


@dataclass(frozen=True)
class Importance:
    """The measurement of one weight: sums of squared activations, (matrices, columns) in float32, and numbers of
    tokens, (matrices,). Only experts have several matrices."""

    sums: NDArray[np.float32]
    counts: NDArray[np.int64]

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean squares, (matrices · columns,); 1 without tokens, as in llama.cpp."""
        counts = self.counts.astype(np.float32)[:, None]
        seen = np.broadcast_to(counts > 0, self.sums.shape)
        return np.divide(self.sums, counts, out=np.ones_like(self.sums), where=seen).reshape(-1)


@dataclass(frozen=True)
class Imatrix:
    """An importance matrix by GGUF tensor name.

    `datasets` are the texts of the measurement, `chunks` the number of chunks of `chunk_tokens` tokens. `file` is the
    file that it was read from, if any.
    """

    entries: Mapping[str, Importance]
    datasets: tuple[str, ...]
    chunks: int
    chunk_tokens: int
    file: Path | None = None

    @cached_property
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The quantizer's weights by tensor name: (columns,), or (experts · columns,)."""
        return {name: entry.mean for name, entry in self.entries.items()}

    def weights_for(self, plan: Iterable[OutputTensor]) -> dict[str, NDArray[np.float32]]:
        """The weights of a model's tensors. Tensors without an entry are quantized without weights, as in llama.cpp.

        Raises ModelError naming the tensor if an entry has another number of columns, and if no tensor has an entry.
        """
        found = {}
        for tensor in plan:
            weights = self.weights.get(tensor.name)
            if weights is None:
                continue
            columns = tensor.shape[-1] * (tensor.shape[0] if len(tensor.shape) > 2 else 1)
            if weights.size == columns:
                found[tensor.name] = weights
            elif tensor.name != _EMBEDDING:  # llama.cpp's own files contain other values there
                raise ModelError(
                    f"{tensor.name} has {weights.size} columns in this file, but {columns} in the model",
                    where=self.file,
                    remedy="it belongs to another model; measure one with --calibrate DATA",
                )
        if not found:
            raise ModelError(
                "has no entry for any tensor of this model",
                where=self.file,
                remedy="it belongs to another model; measure one with --calibrate DATA",
            )
        return found

    def describe_use(self, writer: GGUFWriter) -> None:
        """Write the metadata that llama.cpp's quantizer writes for an importance matrix.

        Files are named without their folders, so that the model does not reveal its author's disk.
        """
        if self.file is not None:
            writer.add_string("quantize.imatrix.file", self.file.name)
        if self.datasets:
            writer.add_string("quantize.imatrix.dataset", Path(self.datasets[0]).name)
        writer.add_uint32("quantize.imatrix.entries_count", len(self.entries))
        if self.chunks > 0:
            writer.add_uint32("quantize.imatrix.chunks_count", self.chunks)


def read_imatrix(path: Path) -> Imatrix:
    """Read either of llama.cpp's formats.

    Raises ModelError if the file is missing, truncated or not an importance matrix, or if a value is negative or not
    finite.
    """
    found = _read_gguf(GgufFile(path)) if _starts_as_gguf(path) else _read_legacy(path)
    for name, entry in found.entries.items():
        if not (np.isfinite(entry.sums).all() and (entry.sums >= 0).all() and (entry.counts >= 0).all()):
            raise ModelError(
                f"{name} contains a value that is negative or not finite", where=path, remedy="measure it again"
            )
    return found


def write_imatrix(imatrix: Imatrix, out: Path, *, force: bool = False) -> None:
    """Write llama.cpp's GGUF format, complete or not at all. Raises OutputError."""
    from gguf import GGUFType, GGUFWriter, Keys

    with staged_file(out, force=force) as staged:
        writer = GGUFWriter(staged, arch="")  # which leaves general.architecture out
        try:
            writer.add_type(GGUFType.IMATRIX)
            writer.add_array(Keys.IMatrix.DATASETS, list(imatrix.datasets) or ["unknown"])
            writer.add_uint32(Keys.IMatrix.CHUNK_COUNT, imatrix.chunks)
            writer.add_uint32(Keys.IMatrix.CHUNK_SIZE, imatrix.chunk_tokens)
            for name, entry in sorted(imatrix.entries.items()):
                counts = entry.counts.astype(np.float32)
                several = len(counts) > 1
                writer.add_tensor(name + _SUMS, entry.sums if several else entry.sums[0])
                writer.add_tensor(name + _COUNTS, counts[:, None] if several else counts)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _starts_as_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except FileNotFoundError:
        raise ModelError("there is no such importance matrix", where=path, remedy=_REMEDY) from None
    except OSError as problem:
        raise ModelError(f"cannot be read ({problem.strerror})", where=path, remedy=_REMEDY) from None


def _read_gguf(file: GgufFile) -> Imatrix:
    from gguf import Keys

    datasets = file.array(Keys.IMatrix.DATASETS)
    chunks, chunk_tokens = (file.metadata.get(key) for key in (Keys.IMatrix.CHUNK_COUNT, Keys.IMatrix.CHUNK_SIZE))
    if datasets is None or not isinstance(chunks, int) or not isinstance(chunk_tokens, int):
        kind = file.metadata.get("general.type", "missing")
        raise ModelError(
            f"is a GGUF, but not an importance matrix (general.type is {kind})", where=file.path, remedy=_REMEDY
        )
    names = {name.removesuffix(_SUMS).removesuffix(_COUNTS) for name in file.tensors if name.endswith((_SUMS, _COUNTS))}
    if not names:
        raise ModelError("contains no entries", where=file.path, remedy=_REMEDY)
    entries = {name: _entry(file, name) for name in sorted(names)}
    return Imatrix(entries, tuple(map(str, datasets)), chunks, chunk_tokens, file.path)


def _entry(file: GgufFile, name: str) -> Importance:
    sums, counts = (_floats(file, name + suffix) for suffix in (_SUMS, _COUNTS))
    if not counts.size or not sums.size or sums.size % counts.size or not np.isfinite(counts).all():
        raise ModelError(f"{name} has {sums.size} sums and {counts.size} counts, which do not match", where=file.path)
    return Importance(sums.reshape(counts.size, -1), np.floor(counts + np.float32(0.5)).astype(np.int64))


def _floats(file: GgufFile, name: str) -> NDArray[np.float32]:
    from gguf import GGMLQuantizationType

    stored = file.tensors.get(name)
    if stored is None or stored.kind != GGMLQuantizationType.F32:
        how = "lacks" if stored is None else "has no float32 tensor"
        raise ModelError(f"{how} {name}, which an importance matrix needs", where=file.path, remedy=_REMEDY)
    return np.ascontiguousarray(file.data(name)).view(np.float32).reshape(-1)


def _read_legacy(path: Path) -> Imatrix:
    """Read the older format: little-endian int32 counts and float32 sums, already divided by tokens per chunk."""
    stream = io.BytesIO(path.read_bytes())
    entries: dict[str, Importance] = {}
    try:
        expected = _number(stream)
        for _ in range(expected):
            name = _text(stream)
            calls, values = _number(stream), _number(stream)
            sums = np.frombuffer(_take(stream, values * 4), dtype="<f4").astype(np.float32)
            entries[name] = Importance(sums[None, :], np.array([max(calls, 1)], dtype=np.int64))
    except ValueError:
        if entries:
            raise ModelError(
                f"is truncated or damaged after {len(entries)} of {expected} entries",
                where=path,
                remedy="copy or measure it again",
            ) from None
    if not entries:
        raise ModelError("is not an importance matrix", where=path, remedy=_REMEDY)
    chunks, datasets = 0, tuple[str, ...]()
    with suppress(ValueError):  # older files end here
        chunks = _number(stream)
        datasets = (_text(stream),)
    # The counts are in chunks, so a chunk has the length 1.
    return Imatrix(entries, datasets, chunks, chunk_tokens=1, file=path)


def _number(stream: io.BytesIO) -> int:
    return int.from_bytes(_take(stream, 4), "little", signed=True)


def _text(stream: io.BytesIO) -> str:
    length = _number(stream)
    if length > _MAX_NAME_BYTES:
        raise ValueError
    return _take(stream, length).decode("utf-8")


def _take(stream: io.BytesIO, length: int) -> bytes:
    taken = stream.read(length) if length > 0 else b""
    if length < 1 or len(taken) < length:
        raise ValueError
    return taken
