"""Export: base ⊕ adapter -> one GGUF file. Reading order: `export`, then the rooms that it calls."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune import console
from edgetune.errors import ModelError, NumericalError
from edgetune.gguf.architectures import Architecture, find_architecture
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.gguf.lineage import Lineage, trace_lineage
from edgetune.gguf.presets import DEFAULT_PRESET, Preset, find_preset
from edgetune.gguf.quantize import quantize
from edgetune.gguf.tensor_types import lossless_preset, plain_types
from edgetune.gguf.verify import verify_export
from edgetune.gguf.vocabulary import Vocabulary, build_vocabulary
from edgetune.measure import Stopwatch, peak_resident_bytes
from edgetune.models.gguf_file import GgufFile
from edgetune.outputs import check_target, staged_file
from edgetune.weights.source import Source
from edgetune.weights.stream import FoldedTensors, open_folded

if TYPE_CHECKING:
    import numpy as np
    import torch
    from gguf import GGMLQuantizationType


@dataclass(frozen=True)
class ExportReport:
    """What was written. `types` counts tensors by GGML type; `seconds` tells where the time went, by phase."""

    out: Path
    bytes: int
    preset: str
    types: dict[str, int]
    pre_tokenizer: str
    folded_modules: int
    seconds: dict[str, float]
    peak_memory_bytes: int


@dataclass(frozen=True)
class _Contents:
    """Everything that goes into the file except the tensors' types."""

    folded: FoldedTensors
    architecture: Architecture
    vocabulary: Vocabulary
    lineage: Lineage
    plan: Sequence[OutputTensor]


def export(source: Source, out: Path, *, preset: str = DEFAULT_PRESET, force: bool = False) -> ExportReport:
    """Write `source` to the GGUF file `out`, complete and verified, or not at all.

    Raises UsageError (preset), OutputError, ModelError, AdapterError, NumericalError, VerificationFailed.
    """
    from gguf import GGMLQuantizationType

    chosen = find_preset(preset)
    check_target(out, force=force)
    clock = Stopwatch()
    with clock.phase("open"):
        tokenizer = source.load_tokenizer()
        contents = _gather(source, tokenizer)
    with staged_file(out, force=force) as staged:
        if chosen.plain:
            with clock.phase("write"):
                _write_plain(contents, chosen, staged)
        else:
            _write_quantized(contents, chosen, staged, clock)
        with clock.phase("verify"):
            verify_export(staged, tokenizer, contents.vocabulary.proven_on, name=out)
        types = Counter(GGMLQuantizationType(tensor.kind).name for tensor in GgufFile(staged).tensors.values())
    return ExportReport(
        out=out,
        bytes=out.stat().st_size,
        preset=chosen.name,
        types=dict(types.most_common()),
        pre_tokenizer=contents.vocabulary.pre,
        folded_modules=contents.folded.folded_modules,
        seconds=clock.seconds,
        peak_memory_bytes=peak_resident_bytes(),
    )


def _gather(source: Source, tokenizer: Any) -> _Contents:
    """Open and plan everything, so that what cannot be exported is refused before anything is written."""
    from gguf import GGUFWriter

    folded = open_folded(source)
    where = source.base.reference
    architecture = find_architecture(folded.config, where=where)
    try:
        plan = architecture.plan(folded.config, folded.tensors)
        architecture.describe(folded.config, GGUFWriter(None, architecture.gguf_name))
    except ModelError as problem:
        raise ModelError(problem.what, where=where, remedy=problem.remedy) from problem
    vocabulary = build_vocabulary(tokenizer, folded.config.vocab_size, where=where, likely_pre=_recorded_pre(source))
    return _Contents(folded, architecture, vocabulary, trace_lineage(source), plan)


def _recorded_pre(source: Source) -> str | None:
    if source.base.gguf is None:
        return None
    recorded = GgufFile(source.base.gguf).metadata.get("tokenizer.ggml.pre")
    return None if recorded is None else str(recorded)


def _write_quantized(contents: _Contents, preset: Preset, staged: Path, clock: Stopwatch) -> None:
    """llama.cpp's quantizer reads a file, so a lossless one is written beside the target first."""
    lossless = lossless_preset(contents.folded.tensors.values())
    with tempfile.TemporaryDirectory(prefix=f"{staged.name}.", dir=staged.parent) as folder:
        intermediate = Path(folder) / f"{lossless.name}.gguf"
        with clock.phase("write"):
            _write_plain(contents, lossless, intermediate)
        with clock.phase("quantize"):
            quantize(intermediate, staged, preset, tensors=len(contents.plan))


def _write_plain(contents: _Contents, preset: Preset, file: Path) -> None:
    """Metadata, then the tensors one at a time."""
    import numpy as np
    from gguf import GGUFWriter

    types = plain_types(contents.plan, preset)
    writer = GGUFWriter(file, contents.architecture.gguf_name)
    try:
        contents.lineage.describe(writer)
        contents.architecture.describe(contents.folded.config, writer)
        writer.add_file_type(preset.file_type)
        contents.vocabulary.describe(writer)
        for tensor in contents.plan:
            kind = types[tensor.name]
            size = _nbytes(tensor.shape, kind)
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        total = sum(_nbytes(tensor.shape, types[tensor.name]) for tensor in contents.plan)
        with console.progress(f"writing {preset.name}", total / 1e6, "MB") as bar:
            for tensor in contents.plan:
                data = _encode(_make(tensor, contents.folded), types[tensor.name], tensor.name)
                writer.write_tensor_data(data)
                bar.advance(data.nbytes / 1e6, tensor.name)
    finally:
        writer.close()


def _make(tensor: OutputTensor, folded: FoldedTensors) -> torch.Tensor:
    if tensor.source is None:
        assert tensor.computed is not None
        return tensor.computed
    made = folded.load(tensor.source)
    return made if tensor.transform is None else tensor.transform(made)


def _encode(tensor: torch.Tensor, kind: GGMLQuantizationType, name: str) -> np.ndarray:
    """The tensor's bytes in a float type. Raises NumericalError when a value is too large for float16."""
    import torch
    from gguf import GGMLQuantizationType

    if kind is GGMLQuantizationType.BF16:
        return tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
    if kind is GGMLQuantizationType.F32:
        return tensor.to(torch.float32).contiguous().numpy()
    half = tensor.to(torch.float16)
    if bool(torch.isinf(half).any()):
        raise NumericalError(f"{name} has values beyond float16's range", remedy="export with --quant bf16 or f32")
    return half.contiguous().numpy()


def _nbytes(shape: Sequence[int], kind: GGMLQuantizationType) -> int:
    from gguf import GGML_QUANT_SIZES

    block_size, type_size = GGML_QUANT_SIZES[kind]
    count = 1
    for length in shape:
        count *= length
    return count // block_size * type_size
