"""Whether a label that a text holds is a word of its own there: bounds of words in scripts with spaces and without."""

from __future__ import annotations

import re

from edgetune.metrics.scripts import is_mark, is_unspaced

_COMMON_HAN = frozenset("是有无無不没沒非对對在了的一二三上下中大小可能会會要")
"""Characters that stand in too many words to be a label where they are found inside one."""

_NEAR = 40
"""So many characters around a label are looked at."""

_ONE_HAN = ("\u4e00", "\u9fff")
_HANGUL = ("\uac00", "\ud7a3")


def is_apart(text: str, start: int, stop: int) -> bool:
    """True where text[start:stop] is no part of a longer word, nor the "no" of "I have no idea".

    Letters of scripts without spaces bound no word. Korean particles join a word from behind. A number goes on over a
    point, and a letter over a plus, a hash and an apostrophe ("C" is no part of "C++", "can" none of "can't").
    """
    name, before = text[start:stop], text[max(0, start - _NEAR) : start]
    rest = text[stop : stop + _NEAR]
    return _begins(before[::-1], name) and _ends(rest, name) and not _is_determiner(before, name, rest)


def _begins(before: str, name: str) -> bool:
    """Whether a word may begin with `name`; `before` is what stands there, in reverse."""
    edge, near = name[0], _neighbour(before)
    if not near:
        return True
    if is_unspaced(edge):
        return not _is_common(name, near)
    if not _is_letter(edge):
        return not edge.isascii() or not (near.isalnum() or near == edge)
    if edge.isdigit() and re.match(r"[.,:/]\d|[-+.](?!\w)", before):
        return False
    return not _continues(edge, near) and not (len(name) == 1 and near in "-'")


def _ends(rest: str, name: str) -> bool:
    """Whether a word may end with `name`; `rest` is what follows."""
    edge, near = name[-1], _neighbour(rest)
    if not near:
        return True
    if is_unspaced(edge):
        return not _is_common(name, near)
    if is_mark(near) or (_within(edge, _HANGUL) and len(name) > 1):
        return not is_mark(near)
    if not _is_letter(edge):
        return not edge.isascii() or not (near.isalpha() or near == edge)
    if (edge.isdigit() and re.match(r"[.,:/]\d|%", rest)) or near in "+#" or re.match(r"'(?:t|re|ve|ll)\b", rest):
        return False
    return not _continues(edge, near) and not (len(name) == 1 and near in "-'")


def _neighbour(rest: str) -> str:
    """The next character, or the one behind underscores, which are emphasis beside a space and join words otherwise."""
    if rest[:1] != "_":
        return rest[:1]
    behind = rest.lstrip("_")[:1]
    return behind if behind and behind.isalnum() else "_"


def _continues(edge: str, near: str) -> bool:
    """True where a letter goes on a word; Korean particles and scripts without spaces go on none in another script."""
    return _is_letter(near) and not is_unspaced(near) and not (edge.isascii() and _within(near, _HANGUL))


def _is_common(name: str, near: str) -> bool:
    """True for one character that is a part of many words, beside another letter."""
    return len(name) == 1 and (not _within(name, _ONE_HAN) or name in _COMMON_HAN) and near.isalnum()


def _is_letter(character: str) -> bool:
    return character.isalnum() or is_mark(character)


def _within(character: str, span: tuple[str, str]) -> bool:
    return span[0] <= character <= span[1]


def _is_determiner(before: str, name: str, rest: str) -> bool:
    """True for a "no" that belongs to the word behind it, in the middle of a sentence."""
    if name.lower() != "no" or re.search(r"\w\s+$", before) is None:
        return False
    return re.match(r"\s+(?!because|since|as\b)\w", rest) is not None
