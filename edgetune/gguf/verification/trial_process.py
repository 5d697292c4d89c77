"""The program that computes a few tokens with llama.cpp in a separate process: native code may crash on a damaged file.

    python trial_process.py MODEL [WHOLE]

Computes with MODEL. WHOLE is the file of which MODEL is an excerpt: its tensors must be those that llama.cpp expects;
they are not read. Prints the kind of model (decoder, encoder, encoder-decoder) and exits with 0. Exits with 3 and the
reason on stderr if llama.cpp refuses or a result is not finite. Imports nothing of edgetune.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from typing import Any

REFUSED = 3

_ERROR_LEVEL = 4
_LOAD_MODE_NONE = 0
_POOLING_NONE, _POOLING_RANK = 0, 4
"""Numbers of ggml_log_level in ggml.h, llama_load_mode and llama_pooling_type in llama.h."""

_TOKENS = 8
_CONTEXT_TOKENS = 32
_THREADS = 1

_errors: list[str] = []


class RefusedError(Exception):
    """llama.cpp refuses the file, or computes something that is not finite."""


def main(model: str, whole: str | None = None) -> int:
    """Check and compute; returns the exit status."""
    import llama_cpp

    keep_errors = llama_cpp.llama_log_callback(_listen)
    llama_cpp.llama_log_set(keep_errors, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    try:
        if whole is not None:
            _check_structure(whole)
        sys.stdout.write(_compute(model))
    except RefusedError as problem:
        sys.stderr.write(str(problem))
        return REFUSED
    return 0


def _listen(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
    if level == _ERROR_LEVEL:
        _errors.append(text.decode("utf-8", "replace").strip())


def _check_structure(file: str) -> None:
    import llama_cpp

    parameters = llama_cpp.llama_model_default_params()
    parameters.no_alloc = True
    parameters.load_mode = _LOAD_MODE_NONE  # nothing is mapped, so nothing is read
    llama_cpp.llama_model_free(_load(file, parameters))


def _compute(file: str) -> str:
    """Compute some tokens, and in a decoder one more: a batch and a single token use different kernels."""
    import llama_cpp

    model = _load(file, llama_cpp.llama_model_default_params())
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = _CONTEXT_TOKENS
    parameters.n_threads = parameters.n_threads_batch = _THREADS
    context = _require(llama_cpp.llama_init_from_model(model, parameters))
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    ids = [number * size // _TOKENS for number in range(_TOKENS)]
    if not (llama_cpp.llama_get_memory(context) and llama_cpp.llama_model_has_decoder(model)):
        llama_cpp.llama_set_embeddings(context, True)
        _run(llama_cpp.llama_encode, context, ids)
        _require_finite(*_embedding(model, context))
        return "encoder"
    encodes = llama_cpp.llama_model_has_encoder(model)
    if encodes:
        _run(llama_cpp.llama_encode, context, ids)
        ids = [max(0, llama_cpp.llama_model_decoder_start_token(model))]
    for batch in (ids, ids[-1:]):
        _run(llama_cpp.llama_decode, context, batch)
        _require_finite(llama_cpp.llama_get_logits_ith(context, -1), size)
    return "encoder-decoder" if encodes else "decoder"


def _load(file: str, parameters: Any) -> Any:
    import llama_cpp

    parameters.n_gpu_layers = 0
    # The extra CPU kernels repack the weights, which crashes on some virtual machines and doubles the memory.
    parameters.use_extra_bufts = False
    return _require(llama_cpp.llama_model_load_from_file(os.fsencode(file), parameters))


def _run(compute: Any, context: Any, ids: Sequence[int]) -> None:
    import llama_cpp

    tokens = (llama_cpp.llama_token * len(ids))(*ids)
    _require(compute(context, llama_cpp.llama_batch_get_one(tokens, len(ids))) == 0)


def _embedding(model: Any, context: Any) -> tuple[Any, int]:
    """An encoder's result (a vector of the text or of its last token, or the scores of its classes) and its length."""
    import llama_cpp

    pooling = llama_cpp.llama_pooling_type(context)
    if pooling == _POOLING_NONE:
        return llama_cpp.llama_get_embeddings_ith(context, -1), llama_cpp.llama_model_n_embd_out(model)
    size = llama_cpp.llama_model_n_cls_out if pooling == _POOLING_RANK else llama_cpp.llama_model_n_embd_out
    return llama_cpp.llama_get_embeddings_seq(context, 0), size(model)


def _require(done: Any) -> Any:
    """Raise RefusedError with llama.cpp's first complaint unless `done`."""
    if not done:
        first = _errors[0] if _errors else "no reason given"
        # The message begins with the name of the C++ function.
        raise RefusedError(first.split(": ", 1)[-1].removeprefix("error loading model: "))
    return done


def _require_finite(values: Any, count: int) -> None:
    import numpy as np

    found = np.ctypeslib.as_array(_require(values), (count,))
    if not np.isfinite(found).all():
        raise RefusedError("its results are not finite (NaN or infinite)")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
