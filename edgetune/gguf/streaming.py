"""The export's pass: a few threads read, merge, quantize and write blocks of rows, each at its offset.

No tensor is completely in memory (except for adapters that only PEFT can merge, one module at a time). The bytes do not
depend on the number of threads: blocks are cut at the same rows, and each is computed separately.
"""

from __future__ import annotations

import math
import os
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.gguf.encode import round_to, to_float32
from edgetune.gguf.tensor_types import tensor_bytes
from edgetune.weights.torch_arrays import one_thread_each

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType

    from edgetune.weights.stream import FoldedTensors

BLOCK_VALUES = 2**19
"""Weights of one block: 2 MB in float32, small enough for a core's cache, large enough to hide Python's overhead."""

BLOCK_ROWS = 64
"""Blocks begin at multiples of this number of rows, the block of a plain LoRA's merge."""


@dataclass(frozen=True)
class PlacedTensor:
    """A tensor of the file with its type and the offset of its bytes; `copied` ones are copied from the GGUF base."""

    tensor: OutputTensor
    kind: GGMLQuantizationType
    start: int
    copied: bool = False

    @property
    def nbytes(self) -> int:
        """Size in the file, without padding."""
        return tensor_bytes(self.tensor.shape, self.kind)

    @property
    def rows(self) -> int:
        """Rows of the matrix; a tensor of one dimension has one row."""
        return math.prod(self.tensor.shape[:-1])


@dataclass(frozen=True)
class _Block:
    placed: PlacedTensor
    first: int
    stop: int


class TensorPass:
    """Makes the bytes of placed tensors. `outtype` is the intermediate float type (that llama.cpp's converter writes
    and its quantizer reads); `importance` maps tensor names to importance weights, (columns,) float32."""

    def __init__(self, folded: FoldedTensors, outtype: str, importance: Mapping[str, np.ndarray]) -> None:
        self._folded = folded
        self._outtype = outtype
        self._importance = importance

    def write(self, file: Path, tensors: Sequence[PlacedTensor], *, threads: int) -> dict[str, int]:
        """Write every tensor into `file` after its header, and return their checksums by name.

        Raises NumericalError, AdapterError, OSError.
        """
        checksums = dict.fromkeys((placed.tensor.name for placed in tensors), 0)
        total = sum(placed.nbytes for placed in tensors)
        descriptor = os.open(file, os.O_WRONLY)
        pool = ThreadPoolExecutor(threads, thread_name_prefix="edgetune-export")
        try:
            os.ftruncate(descriptor, max((placed.start + placed.nbytes for placed in tensors), default=0))
            with one_thread_each(), events.progress("exporting", total / 1e6, "MB") as bar:
                under_way: deque[tuple[_Block, Future[np.ndarray]]] = deque()
                for block in _blocks(tensors):
                    if len(under_way) >= 3 * threads:
                        self._release(_finish(under_way, checksums, bar))
                    under_way.append((block, pool.submit(self._write_block, descriptor, block)))
                while under_way:
                    self._release(_finish(under_way, checksums, bar))
        finally:
            pool.shutdown(cancel_futures=True)
            os.close(descriptor)
        return checksums

    def _write_block(self, descriptor: int, block: _Block) -> np.ndarray:
        """Returns what was written."""
        placed = block.placed
        data = self._stored(placed) if placed.copied else self._encode(block)
        _write_at(descriptor, placed.start + block.first * (placed.nbytes // placed.rows), data)
        return data

    def _stored(self, placed: PlacedTensor) -> np.ndarray:
        """The bytes of a tensor in the GGUF base, until it is released."""
        assert self._folded.gguf_base is not None
        return self._folded.gguf_base.data(placed.tensor.name)

    def _release(self, placed: PlacedTensor) -> None:
        if placed.copied and self._folded.gguf_base is not None:
            self._folded.gguf_base.release(placed.tensor.name)

    def _encode(self, block: _Block) -> np.ndarray:
        from edgetune.gguf.kernels import quantize_rows

        tensor = block.placed.tensor
        values = self._values(tensor, block)
        if not tensor.always_f32 and len(tensor.shape) > 1 and not self._holds_exactly(tensor):
            values = round_to(values, self._outtype, tensor.name)
        rows = values.reshape(-1, tensor.shape[-1])
        return quantize_rows(block.placed.kind, rows, self._importance.get(tensor.name))

    def _values(self, tensor: OutputTensor, block: _Block) -> np.ndarray:
        """Float32 rows in the file's form. A tensor of one dimension is one row of the file."""
        import numpy as np

        if tensor.source is None:
            assert tensor.computed is not None
            return np.ascontiguousarray(tensor.computed, dtype=np.float32)
        first, stop = (block.first, block.stop) if len(tensor.shape) > 1 else (0, tensor.shape[0])
        values = to_float32(self._folded.rows(tensor.source, first, stop))
        self._folded.release(tensor.source, first, stop)
        return values if tensor.transform is None else np.ascontiguousarray(tensor.transform(values))

    def _holds_exactly(self, tensor: OutputTensor) -> bool:
        """True if rounding to the output type would change nothing."""
        if tensor.source is None or tensor.transform is not None:
            return False
        return self._folded.tensors[tensor.source].dtype == self._outtype


def _write_at(descriptor: int, position: int, data: np.ndarray) -> None:
    view = _bytes_of(data)
    written = 0
    while written < len(view):
        written += os.pwrite(descriptor, view[written:], position + written)


def _bytes_of(data: np.ndarray) -> memoryview:
    return data.reshape(-1).view("uint8").data


def _blocks(tensors: Sequence[PlacedTensor]) -> Iterator[_Block]:
    """Blocks in the file's order, of about BLOCK_VALUES weights and a multiple of `rows_together` rows."""
    for placed in tensors:
        shape = placed.tensor.shape
        if placed.copied or placed.tensor.source is None or len(shape) < 2:
            yield _Block(placed, 0, placed.rows)
            continue
        together = math.lcm(placed.tensor.rows_together, BLOCK_ROWS)
        step = max(together, BLOCK_VALUES // shape[-1] // together * together)
        for first in range(0, placed.rows, step):
            yield _Block(placed, first, min(first + step, placed.rows))


def _finish(
    under_way: deque[tuple[_Block, Future[np.ndarray]]], checksums: dict[str, int], bar: events.ProgressHandle
) -> PlacedTensor:
    """Wait for the next block in the file's order, which checksums need, and return its tensor."""
    block, future = under_way.popleft()
    data, name = future.result(), block.placed.tensor.name
    checksums[name] = zlib.crc32(_bytes_of(data), checksums[name])
    bar.advance(data.nbytes / 1e6, name)
    return block.placed
