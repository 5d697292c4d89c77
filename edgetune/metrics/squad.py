"""The text of short answers, made comparable as the SQuAD evaluation does it.

https://aclanthology.org/D16-1264 (version 1.1), https://aclanthology.org/P18-2124 (version 2.0).
"""

from __future__ import annotations

import re
import string

NORMALIZATION = "SQuAD: lower case, without ASCII punctuation, without the words a, an and the, single spaces"

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """The text in lower case, without ASCII punctuation and English articles, words divided by single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
