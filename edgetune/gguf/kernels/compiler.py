"""Compiles a kernel with Numba and LLVM to object code for this machine. Imported only while kernels are compiled."""

from __future__ import annotations

import importlib

import llvmlite.binding as llvm
from numba import cfunc, types

from edgetune.gguf.kernels.machine import target_machine

_FLOATS = types.CPointer(types.float32)
_BYTES = types.CPointer(types.uint8)
_SIGNATURE = types.void(_FLOATS, _FLOATS, _BYTES, _FLOATS, types.int64, types.int64)


def compile_kernel(module: str, function: str, symbol: str) -> bytes:
    """Object code of the kernel `function` in this package's `module`, with the name `symbol`.

    In the numpy error model a division by zero is infinite, as in C, and does not raise.
    """
    source = getattr(importlib.import_module(f"edgetune.gguf.kernels.{module}"), function)
    compiled = cfunc(_SIGNATURE, error_model="numpy")(source)
    program = llvm.parse_assembly(compiled.inspect_llvm())
    program.get_function(compiled.native_name).name = symbol
    return target_machine().emit_object(program)
