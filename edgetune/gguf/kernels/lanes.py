"""Vectors of LANES float32 or int32 values as Numba types, with which the kernels are written.

A lane is one block of weights. An operation on vectors does in every lane what the scalar program does for its block,
in the same order, so the bits are the same; LLVM splits a vector into as many registers as the machine needs.
Operations must not be reassociated or fused: each is one rounding (IEEE 754), as in llama.cpp's build for x86-64.
Imported only while kernels are compiled.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from edgetune.gguf.kernels.layout import LANES

Floats: TypeAlias = Any
"""LANES float32 values."""
Ints: TypeAlias = Any
"""LANES int32 values."""
Mask: TypeAlias = Any
"""LANES truth values."""
Pointer: TypeAlias = Any
"""Address of float32, int32 or uint8 values; indices count values."""

INT32 = ir.IntType(32)
INT64 = ir.IntType(64)


class LanesType(types.Type):
    """Numba's type of a vector; `element` is LLVM's type of a lane."""

    def __init__(self, name: str, element: ir.Type, scalar: types.Type) -> None:
        self.vector = ir.VectorType(element, LANES)
        self.scalar = scalar
        super().__init__(f"Lanes({name})")


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: LanesType) -> None:
        super().__init__(manager, kind, kind.vector)


FLOATS = LanesType("float32", ir.FloatType(), types.float32)
INTS = LanesType("int32", INT32, types.int32)
MASK = LanesType("bool", ir.IntType(1), types.boolean)


def constant_indices(values: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(INT32, len(values)), list(values))


def _broadcast(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    nothing = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(nothing, scalar, INT32(0))
    return builder.shuffle_vector(first, nothing, constant_indices([0] * LANES))


def _widen(context: Any, builder: ir.IRBuilder, value: ir.Value, kind: types.Type, wanted: LanesType) -> ir.Value:
    """The vector itself, or a scalar in every lane."""
    if isinstance(kind, LanesType):
        return value
    return _broadcast(builder, context.cast(builder, value, kind, wanted.scalar))


def _fits(kind: types.Type, vector: LanesType) -> bool:
    return kind == vector or isinstance(kind, types.Float if vector == FLOATS else types.Integer)


_Emit: TypeAlias = Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]


def _binary(symbol: Any, emitters: dict[LanesType, _Emit], result: LanesType | None = None) -> None:
    """Define `symbol` (and its in-place form) for two vectors, or a vector and a scalar."""

    class Template(AbstractTemplate):
        def generic(self, args: Sequence[types.Type], _kws: Any) -> Any:
            vector = next((kind for kind in args if isinstance(kind, LanesType)), None)
            if vector not in emitters or not all(_fits(kind, vector) for kind in args):
                return None
            return signature(result or vector, *args)

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Sequence[ir.Value]) -> ir.Value:
        vector = next(kind for kind in sig.args if isinstance(kind, LanesType))
        left, right = (_widen(context, builder, *pair, vector) for pair in zip(args, sig.args, strict=True))
        return emitters[vector](builder, left, right)

    in_place = getattr(operator, f"i{symbol.__name__.strip('_')}", None)
    for function in filter(None, (symbol, in_place)):
        infer_global(function)(Template)
        for pair in (
            (LanesType, LanesType),
            *((LanesType, scalar) for scalar in (types.Float, types.Integer)),
            *((scalar, LanesType) for scalar in (types.Float, types.Integer)),
        ):
            lower_builtin(function, *pair)(lower)


def _ordered(symbol: str) -> dict[LanesType, _Emit]:
    return {
        FLOATS: lambda builder, left, right: builder.fcmp_ordered(symbol, left, right),
        INTS: lambda builder, left, right: builder.icmp_signed(symbol, left, right),
    }


_binary(operator.add, {FLOATS: ir.IRBuilder.fadd, INTS: ir.IRBuilder.add})
_binary(operator.sub, {FLOATS: ir.IRBuilder.fsub, INTS: ir.IRBuilder.sub})
_binary(operator.mul, {FLOATS: ir.IRBuilder.fmul})
_binary(operator.truediv, {FLOATS: ir.IRBuilder.fdiv})
_binary(operator.and_, {INTS: ir.IRBuilder.and_, MASK: ir.IRBuilder.and_})
_binary(operator.or_, {INTS: ir.IRBuilder.or_})
_binary(operator.lshift, {INTS: ir.IRBuilder.shl})
_binary(operator.rshift, {INTS: ir.IRBuilder.ashr})
_binary(operator.lt, _ordered("<"), MASK)
_binary(operator.gt, _ordered(">"), MASK)
_binary(operator.eq, _ordered("=="), MASK)
_binary(operator.ne, {INTS: lambda builder, left, right: builder.icmp_signed("!=", left, right)}, MASK)


def _in_every_lane(vector: LanesType) -> Any:
    @intrinsic
    def function(_typing: Any, value: Any) -> Any:
        def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            return _widen(context, builder, args[0], sig.args[0], vector)

        return signature(vector, value), emit

    return function


floats = _in_every_lane(FLOATS)
ints = _in_every_lane(INTS)


@intrinsic
def select(_typing: Any, mask: Any, chosen: Any, otherwise: Any) -> Any:
    """`chosen` in the lanes of `mask`, `otherwise` in the others; one of them may be a scalar."""
    vector = chosen if isinstance(chosen, LanesType) else otherwise

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        sides = (_widen(context, builder, *pair, vector) for pair in zip(args[1:], sig.args[1:], strict=True))
        return builder.select(args[0], *sides)

    return signature(vector, mask, chosen, otherwise), emit


def _of_floats(name: str) -> Any:
    """One of LLVM's functions of a float, in every lane."""

    @intrinsic
    def function(_typing: Any, value: Any) -> Any:
        def emit(_context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
            kind = ir.FunctionType(FLOATS.vector, [FLOATS.vector])
            return builder.call(builder.module.declare_intrinsic(f"llvm.{name}.v{LANES}f32", fnty=kind), args)

        return signature(FLOATS, value), emit

    return function


magnitude = _of_floats("fabs")
square_root = _of_floats("sqrt")


def _converted(source: LanesType, target: LanesType, emit_one: Callable[..., ir.Value]) -> Any:
    @intrinsic
    def function(_typing: Any, value: Any) -> Any:
        def emit(_context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
            return emit_one(builder, args[0], target.vector)

        return (signature(target, value), emit) if value == source else None

    return function


bits = _converted(FLOATS, INTS, ir.IRBuilder.bitcast)
"""The 32 bits of each float."""
from_bits = _converted(INTS, FLOATS, ir.IRBuilder.bitcast)
to_floats = _converted(INTS, FLOATS, ir.IRBuilder.sitofp)
"""Integers as float32, exact below 2^24."""
to_ints = _converted(FLOATS, INTS, ir.IRBuilder.fptosi)
"""Floats cut towards zero; their magnitude must be below 2^31."""


@intrinsic
def halves(_typing: Any, first: Any, second: Any) -> Any:
    """One float32 in the first half of the lanes, another in the second half."""

    def emit(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pair = [_widen(context, builder, *side, FLOATS) for side in zip(args, sig.args, strict=True)]
        return builder.shuffle_vector(*pair, constant_indices([*range(LANES // 2), *range(LANES, LANES + LANES // 2)]))

    return signature(FLOATS, first, second), emit


@intrinsic
def largest(_typing: Any, value: Any) -> Any:
    """The largest int32 of all lanes."""

    def emit(_context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
        kind = ir.FunctionType(INT32, [INTS.vector])
        function = builder.module.declare_intrinsic(f"llvm.vector.reduce.smax.v{LANES}i32", fnty=kind)
        return builder.call(function, args)

    return signature(types.int32, value), emit


@intrinsic
def first_lane(_typing: Any, mask: Any) -> Any:
    """Number of the first true lane of `mask`; there must be one."""

    def emit(_context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
        number = builder.cttz(builder.bitcast(args[0], ir.IntType(LANES)), ir.IntType(1)(0))
        return builder.zext(number, INT64) if LANES < 64 else number

    return signature(types.int64, mask), emit


@intrinsic
def second_half(_typing: Any, value: Any) -> Any:
    """The second half of the lanes, twice."""

    def emit(_context: Any, builder: ir.IRBuilder, _sig: Any, args: Any) -> ir.Value:
        return builder.shuffle_vector(args[0], args[0], constant_indices([*range(LANES // 2, LANES)] * 2))

    return signature(value, value), emit
