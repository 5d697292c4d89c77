"""Export with the user's llama.cpp converter, for architectures that edgetune does not support.

It takes three steps and two intermediate copies beside the target: merge, convert, quantize.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from edgetune import events
from edgetune.errors import ModelError, UsageError, VerificationFailed
from edgetune.gguf.export_report import ExportResult, report_on
from edgetune.gguf.presets import DEFAULT_PRESET, find_preset
from edgetune.gguf.quantize import quantize
from edgetune.gguf.verification.verify import Verification, verify_file
from edgetune.models.gguf_file import GgufFile
from edgetune.outputs import check_target, staged_file
from edgetune.usage import Stopwatch
from edgetune.weights.merge import merge
from edgetune.weights.source import ModelSource


def export_with_converter(
    source: ModelSource,
    out: Path,
    converter: Path,
    *,
    preset: str = DEFAULT_PRESET,
    outtype: str = "auto",
    force: bool = False,
) -> ExportResult:
    """Write `source` to `out` with `converter`, llama.cpp's convert_hf_to_gguf.py or a program with the same options.

    llama.cpp must compute the result; its token ids are not checked.
    Raises UsageError if there is no such program, ModelError with its last line if it fails, VerificationFailed.
    """
    chosen = find_preset(preset)
    check_target(out, force=force)
    if not converter.is_file():
        raise UsageError("there is no such program", where=f"--converter {converter}", remedy="give its path")
    clock = Stopwatch()
    with (
        staged_file(out, force=force) as staged,
        tempfile.TemporaryDirectory(prefix=f"{staged.name}.", dir=staged.parent) as folder,
    ):
        merged, converted = Path(folder) / "merged", Path(folder) / "converted.gguf"
        with clock.phase("merge"):
            folded_modules = merge(source, merged).folded_modules
        with clock.phase("convert"):
            written = staged if chosen.plain else converted
            _convert(converter, merged, written, chosen.name if chosen.plain else outtype)
        if not chosen.plain:
            with clock.phase("quantize"):
                quantize(converted, staged, chosen, tensors=len(GgufFile(converted).tensors))
        with clock.phase("verify"):
            checks = _check(staged, out)
        return report_on(
            GgufFile(staged),
            out=out,
            preset=chosen.name,
            outtype=outtype,
            folded_modules=folded_modules,
            seconds=clock.seconds,
            checks=checks,
        )


def _convert(converter: Path, model: Path, target: Path, outtype: str) -> None:
    events.note(f"converting with {converter}")
    command = [sys.executable, str(converter), str(model), "--outfile", str(target), "--outtype", outtype]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0 or not target.is_file() or target.stat().st_size == 0:
        words = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reason = words[-1].strip() if words else f"exit status {done.returncode}"
        raise ModelError(f"the converter failed ({reason})", where=converter, remedy="run it on the model by hand")


def _check(file: Path, out: Path) -> Verification:
    try:
        return verify_file(file)
    except VerificationFailed as problem:
        raise VerificationFailed(problem.what, where=out, remedy="the file was not kept") from problem
