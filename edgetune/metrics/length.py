"""How long texts are. Tokens are counted where a text is generated; they belong to the model's own tokenizer."""

from __future__ import annotations


def count_words(text: str) -> int:
    """Words: what white space divides."""
    return len(text.split())


def count_characters(text: str) -> int:
    """Characters: Unicode code points."""
    return len(text)
