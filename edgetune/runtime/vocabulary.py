"""The vocabulary of a GGUF: text to tokens and back, its special tokens, and its chat template."""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from edgetune.data.answer_end import find_answer_end
from edgetune.data.reasoning import CHANNEL_MARKS, REASONING_MARKS
from edgetune.data.template import ChatTemplate
from edgetune.models.gguf_tokenizer import NORMALIZER_KEY, unicode_form
from edgetune.runtime import native
from edgetune.runtime.runnable import RunnableFile


class Vocabulary:
    """The tokens of an open model. Usable as long as the model is open."""

    def __init__(self, file: RunnableFile, model: Any) -> None:
        self._llama = native.open_library()
        self.file = file
        self._pointer = self._llama.llama_model_get_vocab(model)
        self.size: int = self._llama.llama_vocab_n_tokens(self._pointer)

    @property
    def pointer(self) -> Any:
        """llama.cpp's own vocabulary. Raises UsageError when the model is closed."""
        return native.require_open(self._pointer, self.file.path)

    def close(self) -> None:
        """Refuse further use; the model that is being closed frees the tokens."""
        self._pointer = None

    @cached_property
    def beginning(self) -> list[int]:
        """What stands before a plain text: the beginning-of-text token where the vocabulary asks for one."""
        bos = self._llama.llama_vocab_bos(self.pointer)
        return [bos] if self._llama.llama_vocab_get_add_bos(self.pointer) and bos >= 0 else []

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template that the file carries. Raises ModelError when it has none."""
        bos, eos = self._llama.llama_vocab_bos(self.pointer), self._llama.llama_vocab_eos(self.pointer)
        return ChatTemplate(self.file.chat_template, self._special_text(bos), self._special_text(eos))

    @cached_property
    def reasoning_marks(self) -> frozenset[int]:
        """The control tokens of this vocabulary with which its model sets reasoning apart from the answer."""
        marks = {mark: self.tokenize(mark) for mark in (*REASONING_MARKS, *CHANNEL_MARKS)}
        found = {mark: ids[0] for mark, ids in marks.items() if len(ids) == 1 and self._is_control(ids[0])}
        channels = CHANNEL_MARKS[0] in found
        return frozenset(token for mark, token in found.items() if channels or mark in REASONING_MARKS)

    def ends(self, token: int) -> bool:
        """True for a token that ends an answer."""
        return token == self._template_end or bool(self._llama.llama_vocab_is_eog(self.pointer, token))

    @cached_property
    def _template_end(self) -> int | None:
        """The control token that the template puts behind an answer.

        Files of other tools may not mark it as an end, and llama.cpp would continue with text that nobody sees.
        """
        if "tokenizer.chat_template" not in self.file.metadata:
            return None
        end = find_answer_end(self.template, self.tokenize, self._is_control)
        return None if end is None else end.token

    def tokenize(self, text: str, *, parse_special: bool = True) -> list[int]:
        """The ids of `text`. Nothing is added: a chat template has the beginning-of-text token where it belongs.

        With `parse_special`, the texts of special tokens become these tokens, as in Transformers. The text is brought
        into the Unicode form that the model's tokenizer brings it into, where the file says so: llama.cpp has none.
        """
        form = unicode_form(self.file.metadata.get(NORMALIZER_KEY))
        if form is not None:
            text = unicodedata.normalize(form, text)
        encoded = text.encode("utf-8", "replace")
        room = len(encoded) + 8
        while True:
            ids = (self._llama.llama_token * room)()
            count = self._llama.llama_tokenize(self.pointer, encoded, len(encoded), ids, room, False, parse_special)
            if count >= 0:
                return ids[:count]
            room = -count

    def detokenize(self, ids: Sequence[int], *, special: bool = True) -> str:
        """The text of `ids`; without `special`, control tokens are left out. Bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.piece(token, special=special) for token in ids).decode("utf-8", "replace")

    def piece(self, token: int, *, special: bool) -> bytes:
        """The bytes of one token; without `special`, none for a control token."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = self._llama.llama_token_to_piece(self.pointer, token, buffer, room, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            room = -length

    def _is_control(self, token: int) -> bool:
        return bool(self._llama.llama_vocab_is_control(self.pointer, token))

    def _special_text(self, token: int) -> str:
        """A special token as a template writes it; empty where the model has none."""
        return "" if token < 0 else self._llama.llama_vocab_get_text(self.pointer, token).decode("utf-8", "replace")
