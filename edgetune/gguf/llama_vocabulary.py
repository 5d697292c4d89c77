"""Asks llama.cpp how it reads a GGUF file: the ids of a text, and whether the model opens."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from edgetune.errors import ModelError

_ERROR_LEVEL = 4
_complaints: list[str] = []


class LlamaVocabulary:
    """The vocabulary of an open GGUF file, and llama.cpp's handle of the `model` that it belongs to."""

    def __init__(self, model: Any) -> None:
        import llama_cpp

        self.model = model
        self._vocabulary = llama_cpp.llama_model_get_vocab(model)

    def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Ids of `text`, special tokens in it recognized; with `add_special`, BOS and EOS where the file adds them."""
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
        """True for a token that stands for something other than its text."""
        import llama_cpp

        return bool(llama_cpp.llama_vocab_is_control(self._vocabulary, token))

    def stops_at(self, token: int) -> bool:
        """True for a token at which llama.cpp ends what it generates."""
        import llama_cpp

        return bool(llama_cpp.llama_vocab_is_eog(self._vocabulary, token))

    def looked_for(self) -> list[str]:
        """The texts of all tokens that llama.cpp looks for in a text before anything else.

        They are those that the file types so, and some that llama.cpp knows by their text, such as </s>.
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
    """Open a GGUF file in llama.cpp, its vocabulary only or (mapped, not computed) the whole model.

    `pre` is read in place of the file's tokenizer.ggml.pre.
    Raises ModelError with llama.cpp's own reason when it refuses.
    """
    import llama_cpp

    _silence()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = not whole_model
    params.n_gpu_layers = 0
    # The extra CPU kernels repack the weights, which crashes on some virtual machines and is not needed here.
    params.use_extra_bufts = False
    overrides = _override_pre(pre)
    if overrides is not None:
        params.kv_overrides = overrides
    _complaints.clear()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(file), params)
    if not model:
        reason = _complaints[0].strip() if _complaints else "no reason given"
        raise ModelError(f"llama.cpp does not open it ({reason})", where=file)
    try:
        yield LlamaVocabulary(model)
    finally:
        llama_cpp.llama_model_free(model)


def _override_pre(pre: str | None) -> Any:
    """llama.cpp's array of metadata overrides, ended by an empty key."""
    import llama_cpp

    if pre is None:
        return None
    overrides = (llama_cpp.llama_model_kv_override * 2)()
    overrides[0].tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
    overrides[0].key = b"tokenizer.ggml.pre"
    overrides[0].value.val_str = pre.encode()
    return overrides


def _silence() -> None:
    """Keep llama.cpp's log off the terminal; its errors become part of ours."""
    import llama_cpp

    llama_cpp.llama_log_set(_listener(), ctypes.c_void_p(0))


@cache
def _listener() -> Any:
    """llama.cpp holds on to its log function, so there is one, and it lives as long as the process."""
    import llama_cpp

    def listen(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        if level == _ERROR_LEVEL:
            _complaints.append(text.decode("utf-8", "replace"))

    llama_cpp.llama_backend_init()
    return llama_cpp.llama_log_callback(listen)
