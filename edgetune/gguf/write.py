"""Export: base ⊕ adapter -> one GGUF file in one pass (docs/export.md). Start reading at `export`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune import events
from edgetune.cores import physical_cores
from edgetune.gguf import kernels
from edgetune.gguf.capacity import check_capacity
from edgetune.gguf.checksums import reserve_checksums, store_checksums
from edgetune.gguf.export_report import ExportResult, report_on
from edgetune.gguf.lineage import trace_lineage
from edgetune.gguf.streaming import PlacedTensor, TensorPass
from edgetune.gguf.tensor_plan import ExportOptions, TensorPlan, plan_tensors
from edgetune.gguf.tensor_types import tensor_bytes
from edgetune.gguf.verification.verify import verify_export
from edgetune.gguf.vocabularies.ends import with_ends
from edgetune.gguf.vocabulary import build_vocabulary
from edgetune.models.ends import recorded_ends
from edgetune.models.gguf_file import GgufFile
from edgetune.models.locate import ModelFiles
from edgetune.outputs import check_target, staged_file
from edgetune.usage import Stopwatch
from edgetune.weights.source import ModelSource

if TYPE_CHECKING:
    from gguf import GGUFWriter


def export(
    source: ModelSource, out: Path, options: ExportOptions | None = None, *, force: bool = False, **changes: Any
) -> ExportResult:
    """Write `source` to the GGUF file `out`, complete and verified, or not at all.

    `changes` are fields of ExportOptions: `export(source, out, preset="q8_0")`.
    Raises UsageError, OutputError, ModelError, AdapterError, NumericalError, VerificationFailed.
    """
    options = options or ExportOptions(**changes)
    check_target(out, force=force)
    threads = options.threads or physical_cores()
    clock = Stopwatch()
    torch_arrives = _import_torch_early(source)
    with clock.phase("open"):
        tokenizer = source.open_tokenizer()
        plan = plan_tensors(source, options)
        check_capacity(plan, out, threads=threads)
        where = source.base.reference
        rows = plan.folded.config.require("vocab_size")
        vocabulary = build_vocabulary(tokenizer, rows, where=where, likely_pre=_recorded_pre(source))
        vocabulary = with_ends(vocabulary, tokenizer, _recorded_ends(source))
        lineage = trace_lineage(source).called(vocabulary.model_name)
        torch_arrives()

    def describe(writer: GGUFWriter) -> None:
        lineage.describe(writer)
        vocabulary.describe(writer)

    with staged_file(out, force=force) as staged:
        with clock.phase("write"):
            write_tensors(plan, describe, staged, threads=threads)
        with clock.phase("verify"):
            checks = verify_export(staged, tokenizer, vocabulary.proven_on, name=out)
        return report_on(
            GgufFile(staged),
            out=out,
            preset=plan.preset.name,
            outtype=plan.outtype,
            folded_modules=plan.folded.folded_modules,
            seconds=clock.seconds,
            checks=checks,
            copied_tensors=len(plan.copied),
            differences=vocabulary.differences,
        )


def write_tensors(plan: TensorPlan, describe: Callable[[GGUFWriter], None], file: Path, *, threads: int) -> None:
    """Write a GGUF of the planned tensors, with the metadata that they need, what `describe` adds, and checksums."""
    placed = _write_header(plan, describe, file)
    kinds, importance = set(plan.types.values()), plan.importance is not None
    if kernels.needs_compiling(kinds, importance=importance):
        events.note("compiling quantizers for this machine, once; it takes a few seconds")
    kernels.prepare(kinds, importance=importance)
    checksums = TensorPass(plan.folded, plan.outtype, plan.weights).write(file, placed, threads=threads)
    store_checksums(file, checksums)


def _write_header(plan: TensorPlan, describe: Callable[[GGUFWriter], None], file: Path) -> list[PlacedTensor]:
    """Write everything before the tensors' bytes, and return the tensors' places."""
    import numpy as np
    from gguf import GGML_QUANT_VERSION, GGUFWriter

    writer = GGUFWriter(file, plan.architecture.gguf_name)
    try:
        plan.architecture.describe(plan.folded.config, writer)
        writer.add_quantization_version(GGML_QUANT_VERSION)
        writer.add_file_type(plan.preset.file_type)
        if plan.importance is not None:
            plan.importance.describe_use(writer)
        describe(writer)
        reserve_checksums(writer, {tensor.name: plan.types[tensor.name].name for tensor in plan.tensors})
        for tensor in plan.tensors:
            kind = plan.types[tensor.name]
            size = tensor_bytes(tensor.shape, kind)
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    placed = []
    start = GGUFWriter.ggml_pad(file.stat().st_size, writer.data_alignment)
    for tensor in plan.tensors:
        placed.append(PlacedTensor(tensor, plan.types[tensor.name], start, copied=tensor.name in plan.copied))
        start += GGUFWriter.ggml_pad(placed[-1].nbytes, writer.data_alignment)
    return placed


def _recorded_pre(source: ModelSource) -> str | None:
    if source.base.gguf is None:
        return None
    recorded = GgufFile(source.base.gguf).metadata.get("tokenizer.ggml.pre")
    return None if recorded is None else str(recorded)


def _recorded_ends(source: ModelSource) -> list[int]:
    """The ends recorded beside the tokenizer, then those beside the base."""
    folder = source.tokenizer_folder
    beside_tokenizer = () if folder is None else recorded_ends(ModelFiles(str(folder), folder))
    return [*beside_tokenizer, *recorded_ends(source.base)]


def _import_torch_early(source: ModelSource) -> Callable[[], object]:
    """Import torch, which merging needs, in the background; call the result to wait. It may raise
    ModuleNotFoundError."""
    if source.adapter is None:
        return lambda: None
    with_one_thread = ThreadPoolExecutor(1)
    arriving = with_one_thread.submit(importlib.import_module, "torch")
    with_one_thread.shutdown(wait=False)
    return arriving.result
