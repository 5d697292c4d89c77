"""Quantizes a GGUF file with llama.cpp's own quantizer, with progress; Ctrl-C stops it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from edgetune import events
from edgetune.errors import ModelError, OutputError
from edgetune.gguf import quantizer_process
from edgetune.gguf.presets import Preset


def quantize(source: Path, target: Path, preset: Preset, *, tensors: int) -> None:
    """Write `source` (a float GGUF of `tensors` tensors) to `target` in `preset`.

    Raises ModelError with llama.cpp's reason, OutputError if it could not write.
    """
    program = [sys.executable, "-P", str(quantizer_process.__file__)]
    command = [*program, str(source), str(target), str(preset.file_type)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            with events.progress(f"quantizing to {preset.name}", tensors, "tensors") as bar:
                for _line in child.stdout:
                    bar.advance()
            reason = child.stderr.read().strip()
            status = child.wait()
        finally:
            if child.poll() is None:
                child.kill()
    if status == 0:
        return
    if "iostream" in reason or "write" in reason:
        free = shutil.disk_usage(target.parent).free
        raise OutputError(
            f"llama.cpp could not write the quantized file; {free / 1e9:.1f} GB are free",
            where=target.parent,
            remedy="free some space or choose another --out",
        )
    last = reason.splitlines()[-1] if reason else f"exit status {status}"
    raise ModelError(f"llama.cpp's quantizer failed ({last})", where=source)
