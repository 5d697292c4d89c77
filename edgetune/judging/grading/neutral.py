"""Neutralizes text that is to be judged: words that could be taken for a verdict or for a chat's own markup.

A visible mark inside each such word is the only change, so people and judges can still read the text, `restore` returns
it unchanged, and the parser does not read a verdict that an answer contains, even where a judge repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

MARK = "␟"
"""U+241F, which text hardly ever holds; where it does, it is doubled."""

_VERDICT_WORDS = ("reason", "winner", "verdict", "rating", "score", "grade", "preference", "judgement", "judgment")
_GAP = r"""["'`*_\s]*"""
_OPENING = r"""[\s*_"'`(\[<]*"""
_GRADE = r"(?:\d|(?:first|second|tie)(?![^\W_]))"
_LETTER = r"(?:(?:answer|response|model|assistant)[\s_-]*[abc12](?![^\W_])|[abc](?![^\W_])(?!\s+\w))"


def neutralize(text: str, fields: Iterable[str]) -> str:
    """`text` with a mark inside whatever looks like a verdict, a delimiter of this package, or a control token.

    `fields` are the names that a verdict's own fields have (lower case, digits, underscores).
    """
    text = text.replace(MARK, MARK * 2)
    lower = text.lower()
    places = {
        match.start("cut")
        for needle, pattern in _patterns(tuple(fields))
        if needle in lower
        for match in pattern.finditer(text)
    }
    ordered = sorted(places)
    pieces = [text[start:end] for start, end in zip([0, *ordered], [*ordered, len(text)], strict=True)]
    return MARK.join(pieces)


def restore(text: str) -> str:
    """The text that `neutralize` was given."""
    return re.sub(f"{MARK}({MARK})?", lambda match: match[1] or "", text)


@lru_cache(maxsize=32)
def _patterns(fields: tuple[str, ...]) -> list[tuple[str, re.Pattern[str]]]:
    """Patterns, each with a text in lower case that whatever it matches holds: looking for that is a hundred times as
    fast. Each has an empty group `cut` where the mark goes: between two of the pattern's own characters, so that it
    never touches a mark of the text itself."""
    shapes = [(word, shape) for word in sorted({*_VERDICT_WORDS, *fields}) for shape in _shapes(word)]
    return [(needle, re.compile(shape, re.IGNORECASE)) for needle, shape in [*shapes, *_MARKUP]]


def _shapes(word: str) -> list[str]:
    cut = f"{word[0]}(?P<cut>){word[1:]}"
    # JSON and other quoted keys: "winner": …, 'rating' = …
    shapes = [rf"""["'`]{cut}["'`]\s*[:=]"""]
    if len(word) > 1:
        # <verdict>, </score>
        shapes.append(rf"<\s*(?:/\s*)?{cut}\b[^<>\n]{{0,80}}>")
    if word != "reason":
        # Rating: 5 — **Winner**: first — correctness = 4 — the score is [[5]]
        shapes.append(rf"(?<![^\W_]){cut}{_GAP}(?:[:=]{_OPENING}(?:{_GRADE}|{_LETTER})|\bis\b{_OPENING}{_GRADE})")
    return shapes


_MARKUP = (
    # [[5]], [[A]], [[first]], [[rating: 5]]
    ("[[", r"\[(?P<cut>)\[\s*(?:rating\s*:?\s*)?(?:\d+(?:\.\d+)?|[abc]|a\s*[<>=]+\s*b|first|second|tie)\s*\]\]"),
    # <|im_start|>, <|eot_id|>, <｜begin▁of▁sentence｜>
    ("<", r"<(?P<cut>)[|｜][^<>|｜\n]{1,40}[|｜]>"),
    # [INST], [/INST], <<SYS>>, [SYSTEM_PROMPT]
    ("[", r"\[(?P<cut>)/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"),
    ("<", r"<(?P<cut>)<\s*(?:/\s*)?SYS\s*>>"),
    # Gemma's turns, sentence marks, role tags
    ("<", r"<(?P<cut>)/?(?:start_of_turn|end_of_turn|s|bos|eos|pad|unk|system|user|assistant|human|data)>"),
    # Hidden thoughts: a judge that repeats such a mark would hide its verdict with it
    ("<", r"<(?P<cut>)\s?/?\s?(?:think(?:ing)?|thoughts?|reasoning|scratchpad|seed:think)\s?>"),
    ("<", r"<(?P<cut>)\|?channel\|?>"),
    ("think]", r"\[(?P<cut>)/?THINK\]"),
    ("think▷", r"◁(?P<cut>)/?think▷"),
    # Alpaca's and Vicuna's headings
    ("###", r"#(?P<cut>)##\s*(?:system|instruction|input|response|human|user|assistant)\s*:"),
    # A quoted key with escaped letters, which JSON reads as plain ones
    ("\\u00", r"""["'][^"'\n]{0,60}\\(?P<cut>)u00[0-9a-f]{2}"""),
    # The lines that this package puts around data
    ("data", r"\bB(?P<cut>)EGIN\s+DATA\b"),
    ("data", r"\bE(?P<cut>)ND\s+DATA\b"),
)
