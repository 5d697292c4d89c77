"""The type of each tensor in the file, as llama.cpp's quantizer decides it.

`llama_model_quantize` has a dry run that reads a file's header, decides, and logs a line for each tensor. It gets a
sparse file with a header but without weights.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.errors import ModelError, UsageError
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.gguf.llama_vocabulary import begin_log
from edgetune.gguf.presets import Preset
from edgetune.recipe.yaml_input import nearest

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

_DECISION = re.compile(
    r"\[\s*\d+/\s*\d+\] +(?P<name>\S+) +- \[[^]]*\], type = +(?P<before>\w+), "
    r"size = +[\d.]+ MiB(?: -> +[\d.]+ MiB \((?P<after>\w+)\))?"
)


@dataclass(frozen=True)
class TypeOverride:
    """A type for tensors whose name matches a pattern (llama.cpp's --tensor-type); the first match counts."""

    pattern: str
    kind: GGMLQuantizationType


def parse_override(text: str) -> TypeOverride:
    """PATTERN=TYPE, for instance attn_v=q6_k or blk\\.0\\.=q8_0. Raises UsageError."""
    from gguf import GGMLQuantizationType

    where = f"--tensor-type {text}"
    pattern, separator, kind = text.rpartition("=")
    if not separator or not pattern:
        what = "must have the form PATTERN=TYPE"
        raise UsageError(what, where=where, remedy="for instance --tensor-type attn_v=q6_k")
    try:
        re.compile(pattern)
    except re.error as problem:
        raise UsageError(f"the pattern is not a regular expression ({problem})", where=where) from None
    names = [kind.name.lower() for kind in GGMLQuantizationType if kind.name[0] in "FBQ" or kind.name[:3] == "IQ4"]
    if kind.lower() not in names:
        raise UsageError(
            f"unknown tensor type{nearest(kind.lower(), names)}",
            where=where,
            remedy=f"the types are {', '.join(names)}",
        )
    return TypeOverride(pattern, GGMLQuantizationType[kind.upper()])


def plain_types(plan: Iterable[OutputTensor], kind: GGMLQuantizationType) -> dict[str, GGMLQuantizationType]:
    """Types by tensor name as in llama.cpp's converter: matrices in `kind`, the rest in float32."""
    from gguf import GGMLQuantizationType

    return {
        tensor.name: GGMLQuantizationType.F32 if tensor.always_f32 or len(tensor.shape) < 2 else kind for tensor in plan
    }


def quantized_types(
    plan: Sequence[OutputTensor],
    describe: Callable[[GGUFWriter], None],
    architecture: str,
    preset: Preset,
    before: Mapping[str, GGMLQuantizationType],
    *,
    overrides: Sequence[TypeOverride] = (),
    importance: bool = False,
) -> dict[str, GGMLQuantizationType]:
    """Types by tensor name that llama.cpp's quantizer chooses for a file with the types `before`.

    `describe` writes the architecture's hyperparameters. `importance` means that there is an importance matrix, which
    changes some types. Raises ModelError with llama.cpp's reason.
    """
    from gguf import GGMLQuantizationType

    with tempfile.NamedTemporaryFile(prefix="edgetune-", suffix=".gguf") as file:
        _write_header(Path(file.name), plan, describe, architecture, before)
        log = _dry_run(file.name, preset, overrides, importance=importance)
    decided = {match["name"]: match["after"] or match["before"] for match in _DECISION.finditer(log)}
    lost = [tensor.name for tensor in plan if tensor.name not in decided]
    if lost:
        raise ModelError(
            f"llama.cpp's log names no type for {lost[0]}",
            remedy="this version of edgetune does not support this version of llama-cpp-python: install 0.3.36",
        )
    return {name: GGMLQuantizationType[kind.upper()] for name, kind in decided.items()}


def _write_header(
    file: Path,
    plan: Iterable[OutputTensor],
    describe: Callable[[GGUFWriter], None],
    architecture: str,
    before: Mapping[str, GGMLQuantizationType],
) -> None:
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(file, architecture)
    try:
        describe(writer)
        total = 0
        for tensor in plan:
            size = tensor_bytes(tensor.shape, before[tensor.name])
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=before[tensor.name])
            total += GGUFWriter.ggml_pad(size, writer.data_alignment)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    os.truncate(file, GGUFWriter.ggml_pad(file.stat().st_size, writer.data_alignment) + total)


def _dry_run(file: str, preset: Preset, overrides: Sequence[TypeOverride], *, importance: bool) -> str:
    """llama.cpp's log of a dry run. Raises ModelError."""
    import llama_cpp

    log = begin_log()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = preset.file_type
    params.dry_run = True
    params.allow_requantize = True
    if overrides:
        table = (llama_cpp.llama_model_tensor_override * (len(overrides) + 1))()
        for entry, override in zip(table, overrides, strict=False):
            entry.pattern, entry.type = override.pattern.encode(), int(override.kind)
        params.tt_overrides = table
    if importance:
        # The dry run needs only to know that there is a matrix, so an empty list is enough.
        params.imatrix = (llama_cpp.llama_model_imatrix_data * 1)()
    if llama_cpp.llama_model_quantize(os.fsencode(file), b"", ctypes.byref(params)) != 0:
        raise ModelError(f"llama.cpp cannot quantize this model ({log.reason(last=True)})")
    return "".join(log.lines)


def tensor_bytes(shape: Sequence[int], kind: GGMLQuantizationType) -> int:
    """Size of a tensor of `shape` in the file, without padding."""
    from gguf import GGML_QUANT_SIZES

    block_size, type_size = GGML_QUANT_SIZES[kind]
    return math.prod(shape) // block_size * type_size
