"""The keys of a GGUF file for its vocabulary, and the values that all kinds of vocabulary share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.models.gguf_tokenizer import NORMALIZER_KEY
from edgetune.models.tokenizer import ModelTokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter


@dataclass(frozen=True)
class GgufVocabulary:
    """The tokenizer.* keys of a GGUF file.

    `model` is llama.cpp's tokenizer: gpt2 (byte-level BPE), llama (SentencePiece BPE), bert (WordPiece) or t5
    (unigram). tokens, types and scores have one entry per row of the embedding; rows without a token are unused. Some
    kinds do not have the fields that default to None. `model_name` is a word that general.name must contain for these
    ids. `normalizer` is the Unicode form (NFC, ...) that a text must have before llama.cpp reads it: edgetune's runtime
    applies it, other programs do not. `proven_on` are texts for which llama.cpp gives the tokenizer's ids;
    `differences` describes those for which it does not.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    special_ids: dict[str, int]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    chat_template: str | dict[str, str] | None
    scores: tuple[float, ...] | None = None
    merges: tuple[str, ...] | None = None
    lowercase: bool | None = None
    strip_accents: bool | None = None
    remove_extra_whitespaces: bool | None = None
    charsmap: bytes | None = None
    model_name: str | None = None
    normalizer: str | None = None
    proven_on: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    def describe(self, writer: GGUFWriter) -> None:
        """Write every tokenizer key."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(list(self.tokens))
        if self.scores is not None:
            writer.add_token_scores(list(self.scores))
        writer.add_token_types(list(self.types))
        if self.merges is not None:
            writer.add_token_merges(list(self.merges))
        for role, token_id in self.special_ids.items():
            writer.add_uint32(f"tokenizer.ggml.{_KEYS.get(role, role)}_token_id", token_id)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        writer.add_add_space_prefix(self.add_space_prefix)
        if self.remove_extra_whitespaces is not None:
            writer.add_remove_extra_whitespaces(self.remove_extra_whitespaces)
        if self.charsmap is not None:
            writer.add_precompiled_charsmap(self.charsmap)
        # The keys of llama.cpp's WordPiece normalizer are younger than the gguf package.
        for name in ("lowercase", "strip_accents"):
            if getattr(self, name) is not None:
                writer.add_bool(f"tokenizer.ggml.normalizer.{name}", getattr(self, name))
        if self.normalizer is not None:
            writer.add_string(NORMALIZER_KEY, self.normalizer)
        if isinstance(self.chat_template, dict):
            named = [{"name": name, "template": template} for name, template in self.chat_template.items()]
            writer.add_chat_template(named)
        elif self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


_KEYS = {"unk": "unknown", "pad": "padding", "sep": "seperator"}
"""GGUF's names of roles where they differ from Transformers' (the misspelling is the format's)."""


def draft(
    tokenizer: ModelTokenizer,
    rows: int,
    *,
    model: str,
    unknown: int | None = None,
    byte_tokens: frozenset[int] = frozenset(),
) -> GgufVocabulary:
    """The common part of all kinds: tokens, types, special tokens, template.

    `unknown` and `byte_tokens` are the ids for text that the vocabulary lacks.
    """
    by_id = {number: token for token, number in tokenizer.vocabulary.items()}
    ids = {role: tokenizer.token_id(role) for role in ("bos", "eos", "unk", "pad")}
    return GgufVocabulary(
        model=model,
        pre="default",
        tokens=tuple(by_id.get(row, f"[PAD{row}]") for row in range(rows)),
        types=tuple(_types(tokenizer, by_id, rows, unknown, byte_tokens)),
        special_ids={role: number for role, number in ids.items() if number is not None and number < rows},
        add_bos=_adds(tokenizer, ids["bos"], 0),
        add_eos=_adds(tokenizer, ids["eos"], -1),
        add_space_prefix=False,
        chat_template=tokenizer.chat_template,
    )


def with_plain_spaces(vocabulary: GgufVocabulary, mark: str) -> tuple[str, ...]:
    """The tokens, with spaces instead of the `mark` in user-defined ones.

    llama.cpp searches for those in the text before it replaces spaces by the mark.
    """
    from gguf import TokenType

    user_defined = int(TokenType.USER_DEFINED)
    return tuple(
        token.replace(mark, " ") if kind == user_defined else token
        for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
    )


def _types(
    tokenizer: ModelTokenizer, by_id: dict[int, str], rows: int, unknown: int | None, byte_tokens: frozenset[int]
) -> Iterator[int]:
    from gguf import TokenType

    # These are used for every row, and converting members of an enumeration is slow.
    normal, unused, byte = int(TokenType.NORMAL), int(TokenType.UNUSED), int(TokenType.BYTE)
    added = {
        row: int(TokenType.CONTROL if token.special else TokenType.USER_DEFINED)
        for row, token in tokenizer.added.items()
    }
    if unknown is not None:
        added[unknown] = int(TokenType.UNKNOWN)
    for row in range(rows):
        if row in added:
            yield added[row]
        elif row not in by_id:
            yield unused
        else:
            yield byte if row in byte_tokens else normal


def _adds(tokenizer: ModelTokenizer, token_id: int | None, position: int) -> bool:
    ids = tokenizer.encode("a", add_special=True)
    return token_id is not None and len(ids) > 1 and ids[position] == token_id
