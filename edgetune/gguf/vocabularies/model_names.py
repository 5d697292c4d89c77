"""Words in a model's name that change how llama.cpp reads special tokens (src/llama-vocab.cpp of 0.3.36).

llama.cpp searches for them in general.name, in lower case.
"""

from __future__ import annotations

import re

from edgetune.models.tokenizer import ModelTokenizer

PHI_3 = "phi-3"
"""White space after special tokens is dropped. Such a file only loads with all of _PHI_3_NEEDS in its vocabulary."""
MODERN_BERT = "modern-bert"
"""White space before [MASK] is dropped."""

_PHI_3_NEEDS = ("</s>", "<unk>", "<s>", "<|endoftext|>")
_MASK = "[MASK]"
_ACTED_ON = {PHI_3: re.compile(r"(phi)-?(3)", re.I | re.A), MODERN_BERT: re.compile(r"(modern)-(bert)", re.I | re.A)}


def fitting_names(tokenizer: ModelTokenizer) -> tuple[str | None, ...]:
    """The words with which llama.cpp may give this tokenizer's ids, and None for a name without them."""
    names = []
    if any(token.rstrip for token in tokenizer.added.values()) and tokenizer.vocabulary.keys() >= {*_PHI_3_NEEDS}:
        names.append(PHI_3)
    if any(token.lstrip and token.content == _MASK for token in tokenizer.added.values()):
        names.append(MODERN_BERT)
    return (*names, None)


def name_read_as(name: str, word: str | None) -> str:
    """`name`, changed so that llama.cpp acts on `word` in it and on no other word (None: on none)."""
    for other, pattern in _ACTED_ON.items():
        if other != word:
            name = pattern.sub(r"\1_\2", name)
    if word is not None and not _ACTED_ON[word].search(name):
        name = f"{name} {word}"
    return name
