"""Which of some labels an answer gives, in words or as the letter of an option."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any

from edgetune.data.columns import normalize_name
from edgetune.metrics.scripts import is_mark, is_unspaced, without_format
from edgetune.runtime.labels.bounds import is_apart
from edgetune.runtime.labels.negation import is_negated
from edgetune.runtime.labels.numbers import named_numbers, value_of
from edgetune.runtime.labels.options import Options

LABEL_READING = 2
"""Counts the rules by which labels are read, so that figures of other rules are not compared with those of these."""

Found = tuple[str | None] | None
"""None: a form does not occur. (None,): it does, and names no label, or several."""

_CLEAR_NAMES = (
    "answer|label|class|category|classification|prediction|predicted|sentiment|verdict|option|choice|decision|intent|"
    "topic|emotion|stance|polarity|judge?ment"
)
_NAMES = rf"{_CLEAR_NAMES}|rating|score|result|output|tone"
"""What a model calls its answer where it announces it."""

_ANNOUNCED = re.compile(
    rf"\b(?:{_NAMES})\b[\s*_\"'`\])>]*(?:\b(?:is|was|would be|should be)\b[\s*_\"'`]*:?|[:=]|->|→|⇒)(?P<rest>[^\n]*)",
    re.I,
)
_BOXED = re.compile(r"\\boxed\{(?:\\text\{)?(?P<rest>[^{}\n]*)\}")
_TAGGED = re.compile(rf"<(?P<tag>(?:final[_ -]?)?(?:{_NAMES}))>(?P<rest>[^<]*)</(?P=tag)>", re.I)
_FENCED = re.compile(r"```\w*\s*\n?(?P<inside>.*?)```", re.S)
_FIELDS = [re.compile(rf"(?:\w+[_ -])?(?:{names})", re.I) for names in (_CLEAR_NAMES, _NAMES)]
_OBJECT = re.compile(r"\{[^{}]*\}")

_SMALL = """
a am an and are as at be by can do for go he her him his i if in is it its may me my of on or our she so the they this
to up us was we who will you all any
"""
_SMALL_WORDS = frozenset(_SMALL.split())
"""English words that are told by case from a label in capitals: US and us, IT and it."""

_POLAR = re.compile(
    r"[\W_]*(?P<rest>yes|no|true|false|maybe|ja|nein|oui|non|sí|sim|não|sì|да|нет)[*_\"'`]*\s*[,.;:!](?=\s)", re.I
)
"""The word that answers a question, where it stands before the rest of the answer: "Yes, there is no harm."."""

_FIRST_CLAUSE = re.compile(r"(?P<said>[^\n.!;(,]{1,120}?)[*_\"'`]*\s*(?:[.!;](?=\s)|[,(]|\s-+\s)")
"""What stands before the rest of a sentence, or of the answer: "Neutral. It is ...", "positive (not ...)"."""

_SAFE_BESIDE_DIGITS = frozenset("()[]{}\"'*_`;:!?。，「」")
_PLAIN = {
    **dict.fromkeys(map(ord, "‐‑‒–—―−"), "-"),
    **dict.fromkeys(map(ord, "’‘ʼ´′"), "'"),
    **dict.fromkeys(map(ord, "“”„‟″"), '"'),
    ord("İ"): "I",
    **dict.fromkeys(range(0xFE00, 0xFE10)),  # how an emoji is drawn
}
_INNER_SEPARATOR = re.compile(r"(?<=[^\W\d_])[-_\s](?=\w)|(?<=\w)[-_\s](?=[^\W\d_])")
_MOST_STRIPPED = 12


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that an answer gives; None where it gives none or several, or denies the one that it names.

    An answer that is a label is that one, before anything is changed about it. After that come, each only where it
    leads to one label alone: Unicode's form, outer spaces and case; full-width forms, dashes and quotes; spaces,
    hyphens and underscores inside ("not hate" is not-hate); numbers by value ("1.0" is 1); punctuation around it, as
    far as no label has it; a field that is named so (JSON, "Answer: ...", \\boxed{...}); and the labels that the text
    holds, the longest first, between the bounds of words, or anywhere in scripts that have no spaces. Labels of one
    letter (A, B, C, D) are read only where they are written as an option: "B", "(B)", "B: a dog", "the answer is B".

    A label that the text denies ("not hate", "non-toxic", "neither positive nor negative") is none, nor is another one
    read from that text.
    """
    return _reader(tuple(labels)).read(text)


def match_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that `text` is, but for Unicode's form, outer spaces, case, separators and how a number is written."""
    return _reader(tuple(labels)).same(text)


@lru_cache(maxsize=32)
def _reader(labels: tuple[str, ...]) -> LabelReader:
    return LabelReader(labels)


@dataclass(frozen=True)
class LabelReader:
    """Some labels, prepared to be found in many texts."""

    labels: tuple[str, ...]

    def read(self, text: str) -> str | None:
        """`parse_label` for these labels."""
        whole = self._whole(text)
        if whole is not None:
            return whole
        for form in (self._field, self._announced):
            found = form(text)
            if found is not None:
                return found[0]
        found_labels = self._named(plain(text))
        return next(iter(found_labels)) if len(found_labels) == 1 else None

    def same(self, text: str) -> str | None:
        """The label that `text` is; see `match_label`."""
        if text in self.labels:
            return text
        if len(text.strip()) > self._longest:
            return None
        for form, table in self._tables:
            key = form(text)
            if key in table:
                return table[key]
        value = value_of(plain(text).strip())
        return None if value is None else self._by_value.get(value)

    def _whole(self, text: str) -> str | None:
        """The label that `text` is when punctuation that belongs to no label is taken off around it."""
        same = self.same(text)
        if same is not None:
            return same
        left = _count(_strippable(text, range(len(text)), 1, self._signs))
        right = _count(_strippable(text, range(len(text) - 1, -1, -1), -1, self._signs))
        if left == len(text) or len(text) - left - right > self._longest:
            return None
        cuts = ((start, stop) for start in range(left + 1) for stop in range(right + 1))
        for start, stop in sorted(cuts, key=sum):
            same = self.same(text[start : len(text) - stop])
            if same is not None:
                return same
        return None

    def _field(self, text: str) -> Found:
        """The label that a JSON object or list gives as its answer."""
        fenced = _FENCED.search(text)
        inside = (text if fenced is None else fenced["inside"]).strip()
        found = None
        for value in [inside] if inside[:1] in ("{", "[") else _OBJECT.findall(text):
            try:
                found = self._of_value(json.loads(value)) or found
            except (ValueError, RecursionError):
                continue
        return found

    def _of_value(self, value: Any) -> Found:
        if isinstance(value, list):
            return self._of_value(value[0]) if len(value) == 1 else None
        if isinstance(value, dict):
            named = [[inner for name, inner in value.items() if field.fullmatch(name.strip())] for field in _FIELDS]
            fields = named[0] or named[1] or (list(value.values()) if len(value) == 1 else [])
            found = [self._of_value(inner) for inner in fields]
            return _agreed([label[0] for label in found if label is not None]) if fields else None
        if isinstance(value, bool):
            return (self.same(str(value).lower()),)
        return (self.read(str(value)),) if isinstance(value, str | int | float) else None

    def _announced(self, text: str) -> Found:
        """The label that stands by itself: behind a word for it ("Answer: B", "Sentiment: positive"), on the first or
        the last of several lines, in front of the rest, or as the word that answers a question."""
        seen = plain(text)
        lines = [line for line in seen.split("\n") if line.strip()]
        claims = [
            self._whole(found["rest"]) or self._option_before(found["rest"]) or self._opening(found["rest"])
            for pattern in (_ANNOUNCED, _BOXED, _TAGGED)
            for found in pattern.finditer(seen)
            if not is_negated(seen, found.start(), found.start(), after=False)
        ]
        polar = _POLAR.match(seen)
        if polar is not None:
            claims.append(self.same(polar["rest"]))
        claims.append(self._opening(seen))
        if len(lines) > 1:
            claims += [self._whole(lines[0]), self._whole(lines[-1])]
        return _agreed(claims) if any(claims) else None

    def _opening(self, text: str) -> str | None:
        """The label that a text begins with, if the rest names no other: "Neutral. It is neither good nor bad."."""
        clause = _FIRST_CLAUSE.match(text)
        label = None if clause is None else self._whole(clause["said"])
        if clause is None or label is None or len(label) == 1 or label in self._by_value.values():
            return None  # options and numbers have forms of their own, and number the entries of lists
        return None if self._named(text[clause.end() :]) - {None, label} else label

    def _option_before(self, text: str) -> str | None:
        return None if self._options is None else self._options.beginning(text)

    def _named(self, text: str) -> set[str | None]:
        """The labels that a text holds; None is among them for one that it denies."""
        named: set[str | None] = set()
        if self._options is not None:
            named |= self._options.named(text)
        for label, pattern in self._patterns:
            pieces, done = [], 0
            for found in pattern.finditer(text):
                if not is_apart(text, found.start(), found.end()):
                    continue
                named.add(None if is_negated(text, found.start(), found.end()) else label)
                pieces.append(text[done : found.start()] + "\0" * (found.end() - found.start()))
                done = found.end()
            text = "".join(pieces) + text[done:]
        if self._by_value:
            named |= named_numbers(text, self._by_value)
        return named

    @cached_property
    def _tables(self) -> list[tuple[Callable[[str], str], dict[str, str | None]]]:
        """Ways to write a label otherwise, and the label by each of its forms; None where several have the same."""
        forms = (
            normalize_name,
            lambda text: normalize_name(text, ignore_case=True),
            lambda text: normalize_name(plain(text), ignore_case=True),
            lambda text: _INNER_SEPARATOR.sub("", normalize_name(plain(text), ignore_case=True)),
            lambda text: normalize_name(plain(text), ignore_case=True).strip("()[]{}\"' ").rstrip(".:)"),
        )
        return [(form, _by(form, self.labels)) for form in forms]

    @cached_property
    def _longest(self) -> int:
        """Characters. No longer text is a label, in whatever form of Unicode and with however many separators."""
        return 16 + 4 * max(map(len, self.labels), default=0)

    @cached_property
    def _by_value(self) -> dict[Decimal, str]:
        """The labels that are numbers; those of one value are told apart by their writing only."""
        found = _by(lambda label: value_of(plain(label).strip()), self.labels)
        return {value: label for value, label in found.items() if value is not None and label is not None}

    @cached_property
    def _signs(self) -> frozenset[str]:
        """The punctuation that labels have."""
        return frozenset(character for label in self.labels for character in label if not character.isalnum())

    @cached_property
    def _options(self) -> Options | None:
        letters = [label for label in self.labels if len(label) == 1 and label.isalpha() and not is_unspaced(label)]
        return Options(tuple(letters)) if letters else None

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str]]]:
        """What finds each label in a text, the longest first. Numbers, options and bare punctuation are found by other
        means or not at all."""
        folded = [normalize_name(plain(label), ignore_case=True) for label in self.labels]
        numbers = set(self._by_value.values())
        found = []
        for label in sorted(self.labels, key=lambda label: len(normalize_name(plain(label))), reverse=True):
            name = normalize_name(plain(label))
            bare = name.isascii() and not any(map(str.isalnum, name))
            option = self._options is not None and self._options.is_option_only(label)
            if not name or bare or option or label in numbers:
                continue
            exact = (
                folded.count(name.casefold()) > 1
                or (len(name) == 1 and name.isascii())
                or (name.isupper() and name.casefold() in _SMALL_WORDS)
            )
            pieces = re.split(_INNER_SEPARATOR, name)
            pattern = r"[-_\s]*".join(re.escape(piece).replace(r"\ ", r"\s+") for piece in pieces)
            found.append((label, re.compile(pattern, 0 if exact else re.IGNORECASE)))
        return found


def plain(text: str) -> str:
    """The text with the characters of ASCII where Unicode has others for the same: full-width forms, dashes, quotes."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", without_format(text)).translate(_PLAIN))


def _by(form: Callable[[str], Any], labels: Sequence[str]) -> dict[Any, str | None]:
    table: dict[Any, str | None] = {}
    for label in labels:
        key = form(label)
        if key != "":
            table[key] = None if key in table and table[key] != label else label
    return table


def _agreed(labels: Iterable[str | None]) -> tuple[str | None]:
    """The one label of several readings, of which some may name none."""
    different = set(labels) - {None}
    return (different.pop(),) if len(different) == 1 else (None,)


def _strippable(text: str, places: Iterable[int], step: int, signs: frozenset[str]) -> Iterator[int]:
    """The places of the punctuation at one end of a text, from the outside, which may be left out there."""
    for place in places:
        character = text[place]
        inner = text[place + step] if 0 <= place + step < len(text) else ""
        if character.isalnum() or is_mark(character) or (character in signs and not character.isspace()):
            return
        safe = character.isspace() or character in _SAFE_BESIDE_DIGITS or (character in ".," and step < 0)
        if (inner.isdigit() and not safe) or (step < 0 and inner.isalnum() and character in "+#-"):
            return
        yield place


def _count(places: Iterator[int]) -> int:
    return sum(1 for _, _ in zip(places, range(_MOST_STRIPPED), strict=False))
