"""The plan of an export: its tensors, their sources and types, made before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.errors import ModelError
from edgetune.gguf.architectures import Architecture, find_architecture
from edgetune.gguf.architectures.outtype import resolve_outtype
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.gguf.imatrix import Imatrix
from edgetune.gguf.presets import DEFAULT_PRESET, Preset, find_preset
from edgetune.gguf.tensor_types import TypeOverride, plain_types, quantized_types
from edgetune.weights.source import ModelSource
from edgetune.weights.stream import BaseAs, FoldedTensors, open_folded

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType


@dataclass(frozen=True)
class ExportOptions:
    """How a GGUF is written; the defaults are those of llama.cpp's own converter and quantizer.

    outtype: intermediate float type before quantization; auto is the base's own 16-bit type, or f16. base_as: merge a
    QLoRA adapter into the 16bit base, or into the quantized base that it was trained on. requantize: also quantize
    tensors of a GGUF base that are already quantized and that the adapter does not change. threads: None for all cores.
    """

    preset: str = DEFAULT_PRESET
    outtype: str = "auto"
    base_as: BaseAs = "16bit"
    overrides: Sequence[TypeOverride] = ()
    importance: Imatrix | None = None
    requantize: bool = False
    threads: int | None = None


@dataclass(frozen=True)
class TensorPlan:
    """The tensors of the file in order, and each one's type by name.

    outtype is F32, F16 or BF16; `copied` names the tensors to copy from a GGUF base; `weights` are those of the
    importance matrix, (columns,) float32.
    """

    folded: FoldedTensors
    architecture: Architecture
    preset: Preset
    outtype: str
    tensors: Sequence[OutputTensor]
    types: Mapping[str, GGMLQuantizationType]
    copied: frozenset[str]
    importance: Imatrix | None
    weights: Mapping[str, np.ndarray]


def plan_tensors(source: ModelSource, options: ExportOptions) -> TensorPlan:
    """Open the source and plan. Raises UsageError, ModelError, AdapterError."""
    from gguf import GGMLQuantizationType

    preset = find_preset(options.preset)
    folded = open_folded(source, base_as=options.base_as)
    where = source.base.reference
    architecture = find_architecture(folded.config, where=where)
    with _named(where):
        tensors = architecture.plan(folded.config, folded.tensors)
        _warn_of_lost_changes(folded, tensors)
        outtype = preset.name.upper() if preset.plain else resolve_outtype(options.outtype, folded.tensors)
        types = plain_types(tensors, GGMLQuantizationType[outtype])
        if not preset.plain:
            types = quantized_types(
                tensors,
                lambda writer: architecture.describe(folded.config, writer),
                architecture.gguf_name,
                preset,
                types,
                overrides=options.overrides,
                importance=options.importance is not None,
            )
    copied = {} if preset.plain or options.requantize else _stored_types(folded, tensors)
    return TensorPlan(
        folded=folded,
        architecture=architecture,
        preset=preset,
        outtype=outtype,
        tensors=tensors,
        types={**types, **copied},
        copied=frozenset(copied),
        importance=options.importance,
        weights={} if options.importance is None else options.importance.weights_for(tensors),
    )


def _warn_of_lost_changes(folded: FoldedTensors, tensors: Sequence[OutputTensor]) -> None:
    """A file with only a part of the model loses the adapter's changes to the other parts."""
    if folded.folded_modules == 0:
        return
    written = {tensor.source for tensor in tensors}
    lost = [name for name in folded.tensors if name not in written and folded.touches(name)]
    if lost:
        events.warn(f"the adapter also changes {len(lost)} tensors that are not in the file (for instance {lost[0]})")


def _stored_types(folded: FoldedTensors, tensors: Sequence[OutputTensor]) -> dict[str, GGMLQuantizationType]:
    """The types of a GGUF base's quantized tensors that the adapter does not change."""
    from gguf import GGMLQuantizationType

    if folded.gguf_base is None:
        return {}
    stored = folded.gguf_base.tensors
    floats = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
    return {
        tensor.name: GGMLQuantizationType(stored[tensor.name].kind)
        for tensor in tensors
        if tensor.source is not None
        and tensor.name in stored
        and stored[tensor.name].kind not in floats
        and not folded.touches(tensor.source)
    }


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Add the model to the errors of architectures, which do not know its name."""
    try:
        yield
    except ModelError as problem:
        if problem.where is not None:
            raise
        raise ModelError(problem.what, where=where, remedy=problem.remedy) from problem
