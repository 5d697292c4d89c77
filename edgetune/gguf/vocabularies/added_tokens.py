"""Compares llama.cpp's and the tokenizer's reading of every added token in a text.

A tokenizer may drop the white space beside an added token (lstrip, rstrip), match it only as a separate word
(single_word), or search for it in normalized text (normalized), and it matches the token that begins first. llama.cpp
matches the longest token first, and drops white space only for some names of models (see model_names).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgetune.gguf.llama_vocabulary import LlamaVocabulary
from edgetune.gguf.vocabularies.normalizer import find_normalizer
from edgetune.gguf.vocabularies.sentencepiece import SPACE, is_sentencepiece_bpe
from edgetune.models.tokenizer import ModelTokenizer

if TYPE_CHECKING:
    from tokenizers import AddedToken

_SHOWN = 8
"""The number of tokens that a message names."""
_OVERLAPS = 4000
"""The number of pairs of tokens that are tried."""

_STRIPS = "the tokenizer removes the white space {side} it"
_WORD = "the tokenizer matches it only as a whole word"
_NORMALIZED = "the tokenizer matches it in normalized text"
_OVERLAPPING = "it overlaps {other!r}, and llama.cpp matches the longer one first"
_ORDINARY = "llama.cpp always reads it as a special token, but for the tokenizer it is ordinary text"
_OTHERWISE = "llama.cpp reads it, or the text next to it, differently"


def differing_tokens(
    vocabulary: LlamaVocabulary, tokenizer: ModelTokenizer, *, by_flags_only: bool = False
) -> dict[str, str]:
    """Tokens for which llama.cpp and the tokenizer give different ids, and why; empty when all ids are the same.

    With `by_flags_only`, only tokens that differ because of their flags: this is for tokenizers whose rule for spaces
    differs from llama.cpp's beside every token.
    """
    normalize = find_normalizer(tokenizer) or str
    differing: dict[str, list[str]] = {}
    for content, raw in _texts(vocabulary, tokenizer):
        text = normalize(raw)
        if vocabulary.encode(text, add_special=False) != tokenizer.encode(text):
            differing.setdefault(content, []).append(text)
    if by_flags_only and differing:
        differing = _caused_by_flags(differing, tokenizer)
    flags = {_in_text(token, tokenizer.settings): token for token in tokenizer.added.values()}
    overlaps = {content: other for content, other, _ in _overlaps([*flags])}
    return {content: _reason(flags.get(content), overlaps.get(content)) for content in differing}


def unlike_tokens(text: str, tokenizer: ModelTokenizer) -> dict[str, str]:
    """Tokens in `text` that llama.cpp reads differently because of their flags or an overlap, and why."""
    flags = {_in_text(token, tokenizer.settings): token for token in tokenizer.added.values()}
    overlaps = {content: other for content, other, _ in _overlaps([*flags])}
    return {
        content: _reason(token, overlaps.get(content))
        for content, token in flags.items()
        if content in text and (has_flags(token) or content in overlaps)
    }


def describe_differing(differing: Mapping[str, str]) -> str:
    """A sentence about the differing tokens."""
    return f"text with these tokens has other ids in llama.cpp than in training ({describe_tokens(differing)})"


def describe_tokens(differing: Mapping[str, str]) -> str:
    """The differing tokens, grouped by reason."""
    by_reason: dict[str, list[str]] = {}
    for content, reason in differing.items():
        by_reason.setdefault(reason, []).append(content)
    parts = []
    for reason, contents in by_reason.items():
        named = ", ".join(map(repr, contents[:_SHOWN]))
        more = f" and {len(contents) - _SHOWN} more" if len(contents) > _SHOWN else ""
        parts.append(f"{named}{more}: {reason}")
    return "; ".join(parts)


def drops_white_space(token: AddedToken) -> bool:
    """True for a token beside which the tokenizer drops white space."""
    return bool(token.lstrip or token.rstrip)


def has_flags(token: AddedToken) -> bool:
    """True for a token that is not simply matched by its text."""
    return drops_white_space(token) or bool(token.single_word)


def _texts(vocabulary: LlamaVocabulary, tokenizer: ModelTokenizer) -> Iterator[tuple[str, str]]:
    """(token, text with it): with words and white space on both sides, and overlapping tokens one after the other."""
    added = [_in_text(token, tokenizer.settings) for token in tokenizer.added.values() if token.content]
    for content in dict.fromkeys([*added, *vocabulary.looked_for()]):
        yield content, f"x{content} \n {content}x"
        yield content, f"{content} {content}"
    for token in tokenizer.added.values():
        if token.normalized and tokenizer.settings["normalizer"] is not None:
            for content in (token.content.lower(), token.content.upper()):
                yield token.content, f"x {content} x"
    for content, _, both in _overlaps(added):
        yield content, f"x {both} x"


def _in_text(token: AddedToken, settings: dict[str, Any]) -> str:
    """The token in a text: where spaces have a mark, tokens of several spaces (Gemma) are declared with the mark."""
    marked = settings["model"]["type"] == "Unigram" or is_sentencepiece_bpe(settings)
    content: str = token.content
    return content.replace(SPACE, " ") if marked and not token.special else content


def _overlaps(contents: list[str]) -> Iterator[tuple[str, str, str]]:
    """(token, token, the two as one text), the second beginning with the last letters of the first."""
    by_beginning: dict[str, list[str]] = {}
    for content in contents:
        for end in range(1, len(content)):
            by_beginning.setdefault(content[:end], []).append(content)
    pairs = (
        (content, other, content + other[len(content) - start :])
        for content in contents
        for start in range(1, len(content))
        for other in by_beginning.get(content[start:], ())
        if other != content
    )
    return itertools.islice(pairs, _OVERLAPS)


def _caused_by_flags(differing: Mapping[str, list[str]], tokenizer: ModelTokenizer) -> dict[str, list[str]]:
    """Those whose ids from the tokenizer depend on the flags of an added token."""
    from tokenizers import Tokenizer

    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    settings = {**tokenizer.settings}
    settings["added_tokens"] = [{**token, **flags} for token in settings["added_tokens"]]
    without = Tokenizer.from_str(json.dumps(settings))
    return {
        content: texts
        for content, texts in differing.items()
        if any(without.encode(text, add_special_tokens=False).ids != tokenizer.encode(text) for text in texts)
    }


def _reason(token: AddedToken | None, overlapped: str | None) -> str:
    if token is None:
        return _ORDINARY
    if drops_white_space(token):
        sides = ("before" * token.lstrip, "after" * token.rstrip)
        return _STRIPS.format(side=" and ".join(side for side in sides if side))
    if token.single_word:
        return _WORD
    if overlapped is not None:
        return _OVERLAPPING.format(other=overlapped)
    return _NORMALIZED if token.normalized else _OTHERWISE
