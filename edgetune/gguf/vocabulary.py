"""A Hugging Face tokenizer -> the vocabulary of a GGUF file, proven to give the same ids in llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from edgetune import console
from edgetune.errors import ModelError
from edgetune.gguf.vocabularies.byte_level import byte_level_candidates, is_byte_level
from edgetune.gguf.vocabularies.metadata import Vocabulary
from edgetune.gguf.vocabularies.proof import chat_texts, disagreement, first_proven, parity_texts, texts_in_use
from edgetune.gguf.vocabularies.sentencepiece import is_sentencepiece_bpe, sentencepiece_candidates
from edgetune.gguf.vocabularies.unigram import unigram_candidates
from edgetune.gguf.vocabularies.wordpiece import wordpiece_candidates
from edgetune.models.tokenizer import ModelTokenizer

__all__ = ["Vocabulary", "build_vocabulary", "chat_texts", "disagreement", "parity_texts"]


def build_vocabulary(tokenizer: ModelTokenizer, rows: int, *, where: str, likely_pre: str | None = None) -> Vocabulary:
    """The vocabulary for an embedding of `rows` rows. `likely_pre` is a name to try first (a GGUF base knows its own).

    Raises ModelError when the tokenizer has more tokens than the embedding has rows, is of a kind that llama.cpp does
    not have, or llama.cpp cannot be made to give its ids. Says so where they differ on text that the model will hardly
    be given.
    """
    tokenizer.require_rows(rows, where=where)
    candidates = partial(_candidates, tokenizer, rows, where=where, likely_pre=likely_pre)
    proven, differs_on = first_proven(candidates(), tokenizer, parity_texts(tokenizer))
    if proven is None and not is_byte_level(tokenizer.settings):
        texts, name = texts_in_use(tokenizer)
        proven, _ = first_proven(candidates(), tokenizer, texts)
        if proven is not None:
            console.warn(
                f"llama.cpp and this tokenizer give different ids for some text ({differs_on[:40]!r}); "
                f"{name} get the same ids"
            )
    if proven is None:
        raise ModelError(
            f"llama.cpp cannot give this tokenizer's ids (they differ on {differs_on[:60]!r})",
            where=where,
            remedy="a newer llama-cpp-python may know it: pip install -U llama-cpp-python",
        )
    return proven


def _candidates(tokenizer: ModelTokenizer, rows: int, *, where: str, likely_pre: str | None) -> Iterator[Vocabulary]:
    settings = tokenizer.settings
    kind = settings["model"]["type"]
    if is_byte_level(settings):
        return byte_level_candidates(tokenizer, rows, likely_pre=likely_pre)
    if is_sentencepiece_bpe(settings):
        return sentencepiece_candidates(tokenizer, rows)
    if kind == "WordPiece":
        return wordpiece_candidates(tokenizer, rows)
    if kind == "Unigram":
        return unigram_candidates(tokenizer, rows)
    raise ModelError(
        f"has a {kind} tokenizer of a kind that llama.cpp does not have",
        where=where,
        remedy="byte-level BPE, SentencePiece BPE with byte fallback, WordPiece and unigram can be written",
    )
