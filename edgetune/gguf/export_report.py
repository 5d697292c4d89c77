"""The report of an export."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edgetune.gguf.verification.verify import Verification
from edgetune.models.gguf_file import GgufFile
from edgetune.outputs import WrittenModel
from edgetune.usage import peak_resident_bytes


@dataclass(frozen=True)
class ExportResult(WrittenModel):
    """A written file with the `checks` that it has passed.

    `types` counts tensors by GGML type, `copied_tensors` those copied from a GGUF base. `seconds` is the time of each
    phase. `differences` describe texts for which llama.cpp gives other ids than the tokenizer.
    """

    preset: str
    outtype: str
    types: dict[str, int]
    copied_tensors: int
    pre_tokenizer: str
    folded_modules: int
    seconds: dict[str, float]
    peak_memory_bytes: int
    checks: Verification
    differences: tuple[str, ...] = ()


def report_on(
    file: GgufFile,
    *,
    out: Path,
    preset: str,
    outtype: str,
    folded_modules: int,
    seconds: dict[str, float],
    checks: Verification,
    copied_tensors: int = 0,
    differences: tuple[str, ...] = (),
) -> ExportResult:
    """The report on a finished `file` whose final name is `out`."""
    from gguf import GGMLQuantizationType

    return ExportResult(
        path=out,
        bytes=file.path.stat().st_size,
        preset=preset,
        outtype=outtype,
        types=dict(Counter(GGMLQuantizationType(tensor.kind).name for tensor in file.tensors.values()).most_common()),
        copied_tensors=copied_tensors,
        pre_tokenizer=str(file.metadata.get("tokenizer.ggml.pre", "")),
        folded_modules=folded_modules,
        seconds=seconds,
        peak_memory_bytes=peak_resident_bytes(),
        checks=checks,
        differences=differences,
    )
