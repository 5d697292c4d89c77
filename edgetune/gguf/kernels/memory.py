"""Reading and writing memory from a kernel. Like lanes.py, imported only while kernels are compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from edgetune.gguf.kernels.lanes import FLOATS, INT32, INT64, constant_indices
from edgetune.gguf.kernels.layout import LANES


@intrinsic
def load(_typing: Any, pointer: Any, index: Any) -> Any:
    """LANES float32 that lie side by side."""

    def emit(_context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
        return builder.load(_address(builder, args[0], args[1], FLOATS.vector), align=4)

    return signature(FLOATS, pointer, types.int64), emit


@intrinsic
def store(_typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Store LANES values side by side; in bytes, the lowest 8 bits of each."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        size = sig.args[0].dtype.bitwidth // 8
        data = args[2] if size == 4 else builder.trunc(args[2], ir.VectorType(ir.IntType(8), LANES))
        builder.store(data, _address(builder, args[0], args[1], data.type), align=size)
        return context.get_dummy_value()

    return signature(types.void, pointer, types.int64, value), emit


@intrinsic
def transpose(_typing: Any, source: Any, index: Any, stride: Any, target: Any) -> Any:
    """Store 16 values of LANES blocks, which are `stride` values apart, as target[i, lane] = source[lane, i]."""

    def emit(context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
        pointer, start, step, scratch = args
        sixteen = ir.VectorType(ir.FloatType(), 16)
        for first in range(0, LANES, 16):
            rows = []
            for row in range(first, first + 16):
                offset = builder.add(start, builder.mul(step, INT64(row)))
                rows.append(builder.load(_address(builder, pointer, offset, sixteen), align=4))
            for place, row in enumerate(_transposed(builder, rows)):
                builder.store(row, _address(builder, scratch, INT64(place * LANES + first), row.type), align=4)
        return context.get_dummy_value()

    return signature(types.void, source, types.int64, types.int64, target), emit


def _transposed(builder: ir.IRBuilder, rows: Sequence[ir.Value]) -> list[ir.Value]:
    """A transposed 16 × 16 matrix, by swapping squares of increasing size."""
    rows = list(rows)
    for size in (1, 2, 4, 8):
        upper = constant_indices([column if not column & size else 16 + column - size for column in range(16)])
        lower = constant_indices([column + size if not column & size else 16 + column for column in range(16)])
        for row in range(16):
            if not row & size:
                pair = rows[row], rows[row + size]
                rows[row] = builder.shuffle_vector(*pair, upper)
                rows[row + size] = builder.shuffle_vector(*pair, lower)
    return rows


@intrinsic
def store_first_half(_typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Store the lowest 8 bits of each of the first half of the lanes."""

    def emit(context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
        half = builder.shuffle_vector(args[2], args[2], constant_indices(range(LANES // 2)))
        data = builder.trunc(half, ir.VectorType(ir.IntType(8), LANES // 2))
        builder.store(data, _address(builder, args[0], args[1], data.type), align=1)
        return context.get_dummy_value()

    return signature(types.void, pointer, types.int64, value), emit


@intrinsic
def store_mask(_typing: Any, pointer: Any, index: Any, mask: Any) -> Any:
    """Store one bit per lane in LANES / 8 bytes, the first lane's in the lowest."""

    def emit(context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
        data = builder.bitcast(args[2], ir.IntType(LANES))
        builder.store(data, _address(builder, args[0], args[1], data.type), align=1)
        return context.get_dummy_value()

    return signature(types.void, pointer, types.int64, mask), emit


@intrinsic
def at(_typing: Any, pointer: Any, index: Any) -> Any:
    """One value."""

    def emit(_context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
        return builder.load(builder.gep(args[0], [args[1]]), align=1)

    return signature(pointer.dtype, pointer, types.int64), emit


@intrinsic
def put(_typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write one float32, or the bits of one int32 in its place."""

    def emit(context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
        builder.store(args[2], _address(builder, args[0], args[1], args[2].type), align=4)
        return context.get_dummy_value()

    return signature(types.void, pointer, types.int64, value), emit


def _copier(size: int) -> Any:
    """Copies the lowest `size` bytes of a 32-bit value to an unaligned address."""

    @intrinsic
    def function(_typing: Any, source: Any, index: Any, target: Any, place: Any) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
            value = builder.load(_address(builder, args[0], args[1], INT32), align=4)
            if size < 4:
                value = builder.trunc(value, ir.IntType(8 * size))
            builder.store(value, _address(builder, args[2], args[3], value.type), align=1)
            return context.get_dummy_value()

        return signature(types.void, source, types.int64, target, types.int64), emit

    return function


copy_byte = _copier(1)
copy_two_bytes = _copier(2)
copy_four_bytes = _copier(4)


@intrinsic
def moved(_typing: Any, pointer: Any, index: Any) -> Any:
    """The address `index` values further on."""

    def emit(_context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
        return builder.gep(args[0], [args[1]])

    return signature(pointer, pointer, types.int64), emit


def _address(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value, kind: ir.Type) -> ir.Value:
    return builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer())
