"""The door to llama.cpp: the library, its log, and a model and context through its C interface.

Everything goes through llama-cpp-python's bindings of the C functions. Its high-level `Llama` class is not used: the
Python work that it does for each token costs a quarter of the speed.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from edgetune.errors import ModelError, UsageError
from edgetune.runtime.interrupt import deferred_interrupt

_ERROR, _CONTINUED = 4, 5
"""Levels of llama.cpp's log (enum ggml_log_level in ggml.h)."""

_recent_errors: deque[str] = deque(maxlen=8)


def open_library() -> ModuleType:
    """llama_cpp with its log silenced: errors are kept for the next ModelError, the rest is dropped."""
    import llama_cpp

    # Importing other parts of llama_cpp sets its own callback, so this is done each time.
    llama_cpp.llama_log_set(_error_keeper(), ctypes.c_void_p(0))
    _recent_errors.clear()
    return llama_cpp


@lru_cache(maxsize=1)
def _error_keeper() -> Any:
    """The callback that receives llama.cpp's log. Native code calls it until the process ends, so it is never freed."""
    import llama_cpp

    level_before = 0

    @llama_cpp.llama_log_callback
    def keep_errors(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        nonlocal level_before
        level_before = level_before if level == _CONTINUED else level
        if level_before == _ERROR:
            _recent_errors.append(text.decode("utf-8", "replace").strip())

    llama_cpp.llama_backend_init()
    return keep_errors


def load_model(path: Path, *, extra_kernels: bool) -> Any:
    """A llama_model pointer; free it with llama_model_free. Ctrl-C stops loading.

    `extra_kernels` allows llama.cpp's repacked and AMX weights. Raises ModelError with llama.cpp's own reason.
    """
    llama_cpp = open_library()
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    parameters.use_extra_bufts = extra_kernels
    with deferred_interrupt() as stop:
        parameters.progress_callback = llama_cpp.llama_progress_callback(lambda _progress, _data: not stop.is_set)
        model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
    if not model:
        raise ModelError(
            last_error(), where=path, remedy="check the file, or update llama-cpp-python if the model is new"
        )
    return model


def create_context(
    model: Any,
    *,
    context_tokens: int,
    batch_tokens: int,
    outputs: int,
    threads: int,
    sequences: int = 1,
    flash_attention: bool = True,
) -> Any:
    """A llama_context pointer whose cache is shared by up to `sequences` sequences; free it with llama_free.

    At most `outputs` tokens of one batch can have logits, which bounds the memory set aside for them.
    `flash_attention` leaves it to llama.cpp, which takes it where it can. On the CPU it sums in half precision, and
    batches of 64 tokens and more in another order than smaller ones, so that the same text read in other batches gave
    log-probabilities that differed by up to 0.5 nats.
    Raises ModelError, for instance when the cache of `context_tokens` does not fit into memory.
    """
    llama_cpp = open_library()
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = context_tokens
    parameters.n_batch = batch_tokens
    parameters.n_ubatch = batch_tokens
    parameters.n_outputs_max = outputs
    parameters.n_seq_max = sequences
    parameters.kv_unified = True
    parameters.n_threads = threads
    parameters.n_threads_batch = threads
    parameters.no_perf = True
    if not flash_attention:
        parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise ModelError(
            f"no context of {context_tokens} tokens can be made ({last_error()})", remedy="ask for a smaller context"
        )
    return context


def last_error() -> str:
    """The most telling of llama.cpp's last errors, without the name of the C++ function in front."""
    lines = [line.split(": ", 1)[-1] for line in _recent_errors]
    telling = [line for line in lines if line and line != "failed to load model"]
    reason = telling[-1] if telling else "llama.cpp gives no reason"
    return reason.removeprefix("error loading model: ")


def require_open(pointer: Any, path: Path) -> Any:
    """The pointer, unless it is None: llama.cpp ends the process when it is given memory that was freed.

    Raises UsageError.
    """
    if pointer is None:
        raise UsageError("this model is closed", where=path, remedy="open it again with edgetune.load")
    return pointer
