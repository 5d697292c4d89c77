"""A Hugging Face tokenizer -> the vocabulary of a GGUF file, checked to give the same ids in llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from edgetune import events
from edgetune.errors import ModelError
from edgetune.gguf.vocabularies.added_tokens import describe_differing, describe_tokens, unlike_tokens
from edgetune.gguf.vocabularies.byte_level import byte_level_candidates, is_byte_level
from edgetune.gguf.vocabularies.metadata import GgufVocabulary
from edgetune.gguf.vocabularies.normalizer import describe_normalizer, find_normalizer, require_plain_text_kept
from edgetune.gguf.vocabularies.proof import chat_texts, disagreement, first_proven, parity_texts, texts_in_use
from edgetune.gguf.vocabularies.sentencepiece import is_sentencepiece_bpe, sentencepiece_candidates
from edgetune.gguf.vocabularies.unigram import unigram_candidates
from edgetune.gguf.vocabularies.wordpiece import wordpiece_candidates
from edgetune.models.tokenizer import ModelTokenizer

__all__ = ["GgufVocabulary", "build_vocabulary", "chat_texts", "disagreement", "parity_texts"]


def build_vocabulary(
    tokenizer: ModelTokenizer, rows: int, *, where: str, likely_pre: str | None = None
) -> GgufVocabulary:
    """The vocabulary for an embedding of `rows` rows. `likely_pre` is a name to try first (that of a GGUF base).

    Raises ModelError if the tokenizer has more tokens than the embedding has rows, if llama.cpp does not support its
    kind, or if llama.cpp cannot give its ids. Differences on unusual text are warnings, and `differences` lists them.
    """
    tokenizer.require_rows(rows, where=where)
    normalizer = find_normalizer(tokenizer)
    if normalizer is not None:
        require_plain_text_kept(normalizer, where=where)
    candidates = partial(_candidates, tokenizer, rows, where=where, likely_pre=likely_pre)
    proof, differs_on = first_proven(candidates(), tokenizer, parity_texts(tokenizer))
    differences = []
    if proof is None and not is_byte_level(tokenizer.settings):
        texts, name = texts_in_use(tokenizer)
        proof, _ = first_proven(candidates(), tokenizer, texts, by_flags_only=True)
        differences.append(
            f"llama.cpp and this tokenizer give different ids for some text ({differs_on[:40]!r}); "
            f"{name} get the same ids"
        )
    if proof is None:
        unlike = unlike_tokens(differs_on, tokenizer)
        because = f"; among its tokens are {describe_tokens(unlike)}" if unlike else ""
        raise ModelError(
            f"llama.cpp cannot give this tokenizer's ids (they differ on {differs_on[:60]!r}{because})",
            where=where,
            remedy="a newer llama-cpp-python may support it: pip install -U llama-cpp-python",
        )
    if proof.misread_chat is not None:
        told = describe_tokens(proof.differing) or f"they differ on {proof.misread_chat[:60]!r}"
        raise ModelError(
            f"llama.cpp and this tokenizer give different ids for conversations in the model's chat template ({told})",
            where=where,
            remedy="train with a tokenizer that declares them without lstrip, rstrip, single_word and normalized",
        )
    if normalizer is not None:
        differences.append(describe_normalizer(normalizer, recorded=normalizer.form is not None))
    if proof.differing:
        differences.append(describe_differing(proof.differing))
    for difference in differences:
        events.warn(difference)
    return replace(
        proof.vocabulary,
        normalizer=None if normalizer is None else normalizer.form,
        differences=tuple(differences),
    )


def _candidates(
    tokenizer: ModelTokenizer, rows: int, *, where: str, likely_pre: str | None
) -> Iterator[GgufVocabulary]:
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
        f"has a {kind} tokenizer that llama.cpp does not support",
        where=where,
        remedy="supported are byte-level BPE, SentencePiece BPE with byte fallback, WordPiece and unigram",
    )
