"""SentencePiece unigram (T5, FLAN-T5): scores are log probabilities, and a table rewrites characters first."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from edgetune.gguf.vocabularies.metadata import GgufVocabulary, draft, with_plain_spaces
from edgetune.gguf.vocabularies.normalizer import normalizer_parts
from edgetune.gguf.vocabularies.sentencepiece import SPACE
from edgetune.models.tokenizer import ModelTokenizer

_NEVER_CHOSEN = -10000.0
"""The score of a row without a token."""


def unigram_candidates(tokenizer: ModelTokenizer, rows: int) -> Iterator[GgufVocabulary]:
    """With a space before the text and repeated spaces joined, as in T5, and then the other combinations."""
    plain = draft(tokenizer, rows, model="t5", unknown=tokenizer.token_id("unk"))
    scores = [score for _, score in tokenizer.settings["model"]["vocab"][:rows]]
    plain = replace(
        plain,
        tokens=with_plain_spaces(plain, SPACE),
        scores=(*scores, *[_NEVER_CHOSEN] * (rows - len(scores))),
        charsmap=_charsmap(tokenizer.settings["normalizer"]),
    )
    for joined in (True, False):
        for prefix in (True, False):
            yield replace(plain, add_space_prefix=prefix, remove_extra_whitespaces=joined)


def _charsmap(normalizer: Mapping[str, Any] | None) -> bytes | None:
    """SentencePiece's compiled rewriting rules, if any."""
    for part in normalizer_parts(normalizer):
        if part["type"] == "Precompiled" and part["precompiled_charsmap"]:
            return base64.b64decode(part["precompiled_charsmap"])
    return None
