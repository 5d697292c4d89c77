"""The program that runs llama.cpp's quantizer in a separate process, because Ctrl-C cannot interrupt native code.

    python quantizer_process.py SOURCE TARGET FILE_TYPE

Prints one line "done total" per tensor; on failure the last error of llama.cpp on stderr. Imports nothing of edgetune.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys

_TENSOR_LINE = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")
_ERROR_LEVEL = 4


def main(source: str, target: str, file_type: str) -> int:
    """Quantize `source` to `target`; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import llama_cpp

    errors: list[str] = []

    def listen(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        line = text.decode("utf-8", "replace")
        progress = _TENSOR_LINE.match(line)
        if progress:
            sys.stdout.write(f"{progress[1]} {progress[2]}\n")
            sys.stdout.flush()
        elif level == _ERROR_LEVEL:
            errors.append(line.strip())

    callback = llama_cpp.llama_log_callback(listen)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = int(file_type)
    params.nthread = 0
    status = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    if status != 0:
        sys.stderr.write(errors[-1] if errors else "no reason given")
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
