"""The normalizer of a BPE tokenizer, which llama.cpp does not have."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.errors import ModelError
from edgetune.gguf.hard_text import everyday_texts, hard_texts
from edgetune.gguf.vocabularies.byte_level import is_byte_level
from edgetune.gguf.vocabularies.sentencepiece import SPACE, is_sentencepiece_bpe
from edgetune.models.gguf_tokenizer import UnicodeForm, unicode_form
from edgetune.models.tokenizer import ModelTokenizer


@dataclass(frozen=True)
class Normalizer:
    """The normalizer of a tokenizer: the `names` of its parts, and the `form` when it is a Unicode form.

    It does not change added tokens in a text (`marks`, a pattern).
    """

    names: tuple[str, ...]
    form: UnicodeForm | None
    marks: re.Pattern[str] | None
    backend: Any

    def __call__(self, text: str) -> str:
        """`text` as the tokenizer splits it into tokens."""
        if self.marks is None:
            return self._rewrite(text)
        found = self.marks.split(text)
        # The pattern is one group, so that every second piece is an added token.
        return "".join(piece if number % 2 else self._rewrite(piece) for number, piece in enumerate(found))

    def _rewrite(self, text: str) -> str:
        rewritten: str = self.backend.normalize_str(text)
        return rewritten

    @property
    def title(self) -> str:
        """Its name in messages."""
        return " + ".join(self.names)

    def example(self) -> str:
        """A word that it changes, in ASCII, because both forms look alike; empty when none is known."""
        return next((ascii(word) for text in hard_texts() for word in text.split() if self(word) != word), "")


def find_normalizer(tokenizer: ModelTokenizer) -> Normalizer | None:
    """The normalizer of a BPE tokenizer that llama.cpp does not have; None where there is none, and for other kinds.

    llama.cpp replaces spaces by SentencePiece's mark. For other kinds, either llama.cpp has the normalizer or the proof
    of the ids fails.
    """
    settings = tokenizer.settings
    if not (is_byte_level(settings) or is_sentencepiece_bpe(settings)):
        return None
    parts = [
        part for part in normalizer_parts(settings["normalizer"]) if is_byte_level(settings) or not _marks_spaces(part)
    ]
    if not parts:
        return None
    contents = sorted((token.content for token in tokenizer.added.values()), key=len, reverse=True)
    marks = re.compile(f"({'|'.join(map(re.escape, contents))})") if contents else None
    form = unicode_form(parts[0]["type"]) if len(parts) == 1 else None
    # edgetune's runtime normalizes a text including its special tokens.
    if form is not None and any(unicodedata.normalize(form, content) != content for content in contents):
        form = None
    return Normalizer(tuple(str(part["type"]) for part in parts), form, marks, _build(parts))


def _build(parts: Sequence[Mapping[str, Any]]) -> Any:
    """The library's normalizer of these parts; the library only reads whole tokenizers from JSON."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    around = json.loads(Tokenizer(BPE()).to_str())
    return Tokenizer.from_str(
        json.dumps({**around, "normalizer": {"type": "Sequence", "normalizers": parts}})
    ).normalizer


def require_plain_text_kept(normalizer: Normalizer, *, where: str) -> None:
    """Raise ModelError when ordinary English is changed: llama.cpp would then misread nearly every text."""
    for text in everyday_texts():
        if not text.isascii() or normalizer(text) == text:
            continue
        word = next((word for word in text.split() if normalizer(word) != word), text)
        raise ModelError(
            f"this tokenizer rewrites ordinary text ({normalizer.title}: {word!r} becomes {normalizer(word)!r}), but "
            "llama.cpp does not",
            where=where,
            remedy="use a base whose tokenizer does not rewrite text",
        )


def describe_normalizer(normalizer: Normalizer, *, recorded: bool) -> str:
    """What differs in llama.cpp because of it, for a message; `recorded` is whether the file names its form."""
    example = normalizer.example()
    own = "; edgetune normalizes text before llama.cpp reads it" if recorded else ""
    return (
        f"this tokenizer normalizes text ({normalizer.title}), but llama.cpp does not: changed text"
        f"{f' (such as {example})' if example else ''} has other ids in llama.cpp's own programs than in training, "
        f"all other text has the same ids{own}"
    )


def normalizer_parts(normalizer: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """All parts of a normalizer in tokenizer.json, in order."""
    if normalizer is not None and normalizer["type"] == "Sequence":
        for part in normalizer["normalizers"]:
            yield from normalizer_parts(part)
    elif normalizer is not None:
        yield normalizer


def _marks_spaces(part: Mapping[str, Any]) -> bool:
    if part["type"] == "Prepend":
        return bool(part["prepend"] == SPACE)
    return bool(part["type"] == "Replace" and part["pattern"] == {"String": " "} and part["content"] == SPACE)
