"""SentencePiece BPE (Llama 2, Mistral, Gemma, Phi-3): scores in place of merges, unknown characters as bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from edgetune.gguf.vocabularies.metadata import GgufVocabulary, draft, with_plain_spaces
from edgetune.gguf.vocabularies.model_names import fitting_names
from edgetune.models.tokenizer import ModelTokenizer

SPACE = "\u2581"
"""SentencePiece's mark for a space."""

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def is_sentencepiece_bpe(settings: dict[str, Any]) -> bool:
    """True for a BPE over characters that falls back to bytes; `settings` is tokenizer.json."""
    return settings["model"]["type"] == "BPE" and bool(settings["model"].get("byte_fallback"))


def sentencepiece_candidates(tokenizer: ModelTokenizer, rows: int) -> Iterator[GgufVocabulary]:
    """With and without a space before the text, for each name that changes llama.cpp's reading."""
    byte_tokens = frozenset(row for token, row in tokenizer.vocabulary.items() if _BYTE_TOKEN.fullmatch(token))
    plain = draft(tokenizer, rows, model="llama", unknown=tokenizer.token_id("unk"), byte_tokens=byte_tokens)
    scores = tuple(_scores(plain.tokens, tokenizer.settings["model"]["merges"]))
    plain = replace(plain, scores=scores, tokens=with_plain_spaces(plain, SPACE))
    for model_name in fitting_names(tokenizer):
        for prefix in (True, False):
            yield replace(plain, add_space_prefix=prefix, model_name=model_name)


def _scores(tokens: tuple[str, ...], pairs: list[list[str]]) -> Iterator[float]:
    """llama.cpp joins the pair whose result has the highest score; the rank of its first merge gives that order."""
    first_rank: dict[str, int] = {}
    for rank, (left, right) in enumerate(pairs):
        first_rank.setdefault(left + right, rank)
    for token in tokens:
        yield -float(first_rank.get(token, len(first_rank)))
