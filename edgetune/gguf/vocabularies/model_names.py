"""Words in a model's name by which llama.cpp changes how special tokens are read (src/llama-vocab.cpp, 0.3.36's copy).

llama.cpp looks for them in general.name, in small letters, wherever they stand.
"""

from __future__ import annotations

import re

from edgetune.models.tokenizer import ModelTokenizer

PHI_3 = "phi-3"
"""White space behind special tokens is dropped. Such a file opens only with all of _PHI_3_NEEDS in its vocabulary."""
MODERN_BERT = "modern-bert"
"""White space before [MASK] is dropped."""

_PHI_3_NEEDS = ("</s>", "<unk>", "<s>", "<|endoftext|>")
_MASK = "[MASK]"
_ACTED_ON = {PHI_3: re.compile(r"(phi)-?(3)", re.I | re.A), MODERN_BERT: re.compile(r"(modern)-(bert)", re.I | re.A)}


def fitting_names(tokenizer: ModelTokenizer) -> tuple[str | None, ...]:
    """The words that may make llama.cpp read this tokenizer's tokens as it does, and None for a name without any."""
    names = []
    if any(token.rstrip for token in tokenizer.added.values()) and tokenizer.vocabulary.keys() >= {*_PHI_3_NEEDS}:
        names.append(PHI_3)
    if any(token.lstrip and token.content == _MASK for token in tokenizer.added.values()):
        names.append(MODERN_BERT)
    return (*names, None)


def name_read_as(name: str, word: str | None) -> str:
    """`name`, changed as little as it takes for llama.cpp to act on `word` in it, and on no other (None: on none)."""
    for other, pattern in _ACTED_ON.items():
        if other != word:
            name = pattern.sub(r"\1_\2", name)
    if word is not None and not _ACTED_ON[word].search(name):
        name = f"{name} {word}"
    return name
