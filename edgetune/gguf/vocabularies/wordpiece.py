"""WordPiece (BERT, DistilBERT): whole words and continuations, the longest match first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from edgetune.errors import ModelError
from edgetune.gguf.vocabularies.metadata import GgufVocabulary, draft
from edgetune.gguf.vocabularies.normalizer import normalizer_parts
from edgetune.gguf.vocabularies.sentencepiece import SPACE
from edgetune.models.tokenizer import ModelTokenizer

_CONTINUATION = "##"


def wordpiece_candidates(tokenizer: ModelTokenizer, rows: int) -> Iterator[GgufVocabulary]:
    """The only candidate. llama.cpp marks the beginnings of words, and puts CLS and SEP around every text.

    Raises ModelError for a tokenizer without CLS and SEP.
    """
    plain = draft(tokenizer, rows, model="bert")
    ids = {role: tokenizer.token_id(role) for role in ("cls", "sep", "mask")}
    if ids["cls"] is None or ids["sep"] is None:
        raise ModelError(
            "this WordPiece tokenizer has no CLS or SEP token, and llama.cpp puts both around every text",
            where=tokenizer.where,
            remedy="name them (cls_token, sep_token) in tokenizer_config.json",
        )
    tokens = tuple(_marked(plain))
    named = {"bos": ids["cls"], "eos": ids["sep"], "sep": ids["sep"], "mask": ids["mask"]}
    lowercase, strip_accents = _normalization(tokenizer.settings["normalizer"])
    yield replace(
        plain,
        tokens=tokens,
        special_ids=plain.special_ids | {role: number for role, number in named.items() if number is not None},
        add_bos=True,
        add_eos=True,
        lowercase=lowercase,
        strip_accents=strip_accents,
    )


def _marked(plain: GgufVocabulary) -> Iterator[str]:
    """Hugging Face marks continuations, llama.cpp marks beginnings. Added tokens are not marked."""
    from gguf import TokenType

    unmarked = {int(kind) for kind in (TokenType.CONTROL, TokenType.USER_DEFINED)}
    for token, kind in zip(plain.tokens, plain.types, strict=True):
        if kind in unmarked:
            yield token
        elif token.startswith(_CONTINUATION):
            yield token.removeprefix(_CONTINUATION)
        else:
            yield SPACE + token


def _normalization(normalizer: Mapping[str, Any] | None) -> tuple[bool, bool]:
    """Whether text is lowercased and accents are dropped; BERT drops accents where it lowercases."""
    lowercase, strip_accents = False, False
    for part in normalizer_parts(normalizer):
        if part["type"] == "BertNormalizer":
            lowercase = bool(part["lowercase"])
            strip_accents = lowercase if part["strip_accents"] is None else bool(part["strip_accents"])
        lowercase = lowercase or part["type"] == "Lowercase"
        strip_accents = strip_accents or part["type"] == "StripAccents"
    return lowercase, strip_accents
