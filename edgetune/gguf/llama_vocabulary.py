"""A GGUF file's vocabulary in llama.cpp: the ids of a text, and whether the model opens."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from edgetune.errors import ModelError

_ERROR_LEVEL = 4


class LlamaVocabulary:
    """The vocabulary of an open GGUF file, and llama.cpp's handle of its `model`."""

    def __init__(self, model: Any) -> None:
        import llama_cpp

        self.model = model
        self._vocabulary = llama_cpp.llama_model_get_vocab(model)

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Ids of `text` with special tokens recognized; with `add_special`, also BOS and EOS if the file adds them."""
        import llama_cpp

        data = text.encode("utf-8")
        room = len(data) + 16
        while True:
            ids = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(self._vocabulary, data, len(data), ids, room, add_special, True)
            if count >= 0:
                return list(ids[:count])
            room = -count

    def is_control(self, token: int) -> bool:
        """True for a control token."""
        import llama_cpp

        return bool(llama_cpp.llama_vocab_is_control(self._vocabulary, token))

    def stops_at(self, token: int) -> bool:
        """True for a token at which llama.cpp stops generation."""
        import llama_cpp

        return bool(llama_cpp.llama_vocab_is_eog(self._vocabulary, token))

    def looked_for(self) -> list[str]:
        """The texts of all tokens that llama.cpp searches for before it tokenizes a text.

        Their type in the file says so, or llama.cpp knows them by their text, such as </s>.
        """
        import llama_cpp

        wanted = (
            llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
            | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
            | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        )
        handle = self._vocabulary
        return [
            llama_cpp.llama_vocab_get_text(handle, token).decode("utf-8", "replace")
            for token in range(llama_cpp.llama_vocab_n_tokens(handle))
            if llama_cpp.llama_vocab_get_attr(handle, token) & wanted
        ]


@contextmanager
def open_vocabulary(file: Path, *, whole_model: bool = False, pre: str | None = None) -> Iterator[LlamaVocabulary]:
    """Open a GGUF file in llama.cpp: only its vocabulary, or the whole model (mapped, not computed).

    `pre` overrides the file's tokenizer.ggml.pre. Raises ModelError with llama.cpp's own reason.
    """
    import llama_cpp

    log = begin_log()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = not whole_model
    params.n_gpu_layers = 0
    # The extra CPU kernels repack the weights, which crashes on some virtual machines and is not needed here.
    params.use_extra_bufts = False
    if pre is not None:
        overrides = (llama_cpp.llama_model_kv_override * 2)()  # ended by an empty key
        overrides[0].tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
        overrides[0].key = b"tokenizer.ggml.pre"
        overrides[0].value.val_str = pre.encode()
        params.kv_overrides = overrides
    model = llama_cpp.llama_model_load_from_file(os.fsencode(file), params)
    if not model:
        raise ModelError(f"llama.cpp cannot open it ({log.reason()})", where=file)
    try:
        yield LlamaVocabulary(model)
    finally:
        llama_cpp.llama_model_free(model)


@dataclass
class LlamaLog:
    """llama.cpp's log since `begin_log`, which keeps it off the terminal."""

    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def reason(self, *, last: bool = False) -> str:
        """The first or last error."""
        return self.errors[-1 if last else 0].strip() if self.errors else "no reason given"


def begin_log() -> LlamaLog:
    """Begin a new log. llama.cpp has one log function in a process; other modules set their own."""
    import llama_cpp

    _log.lines.clear()
    _log.errors.clear()
    llama_cpp.llama_log_set(_listener(), ctypes.c_void_p(0))
    return _log


_log = LlamaLog()


@cache
def _listener() -> Any:
    """llama.cpp keeps the pointer to its log function, so this one is never freed."""
    import llama_cpp

    def listen(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        (_log.errors if level == _ERROR_LEVEL else _log.lines).append(text.decode("utf-8", "replace"))

    llama_cpp.llama_backend_init()
    return llama_cpp.llama_log_callback(listen)
