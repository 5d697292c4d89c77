"""Whether a label is denied where a text names it: "not hate", "isn't toxic", "nicht positiv", "不积极"."""

from __future__ import annotations

import re
from functools import cache

from edgetune.metrics.scripts import mark_class

_WITHIN_WORDS = 4
"""So many words before a label are looked at: "I don't think this is positive"."""

_NEGATING = """
not no never neither nor without non cannot cant dont doesnt didnt isnt arent wasnt werent wont wouldnt hardly barely
lacks lack absence devoid
nicht kein keine keinen keinem keiner keines ohne weder nie niemals
pas ni aucun aucune sans jamais sin nunca tampoco não nao sem nem senza né mai niet geen zonder
inte ej utan ikke ikkje uden uten
не нет ни без никогда ні нє nie bez není ne δεν όχι ليس ليست لا غير بدون לא אינו אינה ללא
tidak bukan tanpa không chẳng 안 못
"""
"""Of English, German, the Romance languages and Dutch, Scandinavian, Slavic, Greek, Arabic, Hebrew, Indonesian,
Vietnamese and Korean."""

_NEGATORS = frozenset(_NEGATING.split())

_LATER_NEGATORS = frozenset(["değil", "नहीं", "نیست", "nicht"])
"""Words that deny what is before them."""

_PREFIX = re.compile(r"(?<!\w)(?:non|not|un|anti|no|counter|pseudo|de|dis)-$|(?:¬|≠|!=)\s*$", re.IGNORECASE)
"""What denies a label that a hyphen joins to it, and signs that do."""

_HARMLESS = re.compile(
    r"\b(?:no|without|without a|without any|beyond) (?:doubt|question)\b|\bnot only\b|\bor not\b|\bnothing but\b"
    r"|非常|不错|不仅|不但|无疑|毫无疑问|無疑|無比|无比",
    re.IGNORECASE,
)
"""What has a negator in it and denies nothing."""

_BREAK = re.compile(
    r"[.;:!?,()\n…。，、；：！？「」؟،।|=→⇒]|\b(?:but|however|rather|instead|although|though|so|therefore|thus|hence|because|"
    r"since|aber|sondern|mais|pero|sino)\b",
    re.IGNORECASE,
)
"""Where a clause ends, which a negation does not reach across."""

_PHRASE = re.compile(
    r"\b(?:far from|free of|free from|anything but|opposite of|rather than|instead of|other than)\s+(?:\w+\s+){0,2}$",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"[不没沒無无未非勿莫].{0,3}$|(?:ไม่|บ่|មិន).{0,8}$")
"""Of Chinese, Japanese, Thai, Lao and Khmer, whose words nothing parts."""
_DENIED = re.compile(
    r"""(?:-(?:free|less)\b|["'*`_)\]]*\s*[:=]\s*["'*]*(?:no|false|none|nein|non|0)["'*]*\s*(?:$|[.,;\n}])"""
    r"|\s*(?:is|are|was|were|would be)\s*(?:not|n't|incorrect|wrong|false|absent)\b|\s*(?:isn't|wasn't|aren't)\b)",
    re.IGNORECASE,
)
_DENIED_LATER = re.compile(r"않|아니|아닙|아닌|ない|ません|なく|無い|ぬ")
_AFFIRMED_LATER = re.compile(r"かもしれない|かもしれません|違いない|違いありません|間違いない|間違いありません")


def is_negated(text: str, start: int, end: int, *, after: bool = True) -> bool:
    """True where what stands at text[start:end] is denied by the words before it or, unless `after` is false, by those
    behind it. Quotes and dashes of the text are ASCII (`reading.plain`)."""
    before = _HARMLESS.sub(" ", text[max(0, start - 100) : start])
    clause = before[max((found.end() for found in _BREAK.finditer(before)), default=0) :]
    words = _words(clause)[-_WITHIN_WORDS:]
    if any(word in _NEGATORS or word.endswith("n't") or word == "n't" for word in words):
        return True
    if _PHRASE.search(before) or _PREFIX.search(clause) or _BEFORE.search(clause):
        return True
    return after and _is_denied_behind(text[end : end + 40])


def _is_denied_behind(rest: str) -> bool:
    if _DENIED.match(rest):
        return True
    clause = _AFFIRMED_LATER.sub("", _BREAK.split(rest, maxsplit=1)[0])
    return any(word in _LATER_NEGATORS for word in _words(clause)[:2]) or _DENIED_LATER.search(clause[:12]) is not None


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _word().findall(text)]


@cache
def _word() -> re.Pattern[str]:
    return re.compile(rf"[^\W\d_](?:['\w{mark_class()}])*")
