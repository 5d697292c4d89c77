"""This machine in LLVM, and loading of object code. Does not import Numba."""

from __future__ import annotations

import ctypes
from typing import Any

KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 2)
"""(x, importance, out, scratch, blocks, blocks per row): the addresses of float32 weights, of float32 importance for
the blocks of one row and the first LANES of the next (a repetition), of the uint8 result, and of SCRATCH_ROWS × LANES
float32. There are at least LANES blocks, in whole rows. Calls run without Python's lock."""


def processor() -> str:
    """Name and features of the processor."""
    import llvmlite.binding as llvm

    return f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"


def target_machine() -> Any:
    """A code generator for this processor with all its instructions. An engine takes ownership of it."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
    )


class LoadedKernel:
    """Object code as a function; it stays in memory as long as this object."""

    def __init__(self, code: bytes, symbol: str) -> None:
        import llvmlite.binding as llvm

        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self.call = KERNEL(self._engine.get_function_address(symbol))
