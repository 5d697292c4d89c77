"""Labels that are numbers: found in a text by their value and sign, never inside another number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from edgetune.runtime.labels.negation import is_negated

_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>(?:(?<!\w)[-+]|\b(?:minus|negative|plus)\b)(?P<gap>\s*))?"
    r"(?P<value>\d(?:[\d.,:/%-]{0,60}[\d%])?|\.\d+)(?![\w%])(?![.,]\d)",
    re.I,
)
"""A number with its sign and with all that makes it another one: "0.9", "2019-01-01", "4/5", "50%"."""

_OUT_OF = re.compile(r"(?<=\d)\s+out of\s+(?P<most>\d+)", re.I)


def value_of(text: str) -> Decimal | None:
    """A number; None for what is none."""
    if not re.fullmatch(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)", text):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def named_numbers(text: str, by_value: Mapping[Decimal, str]) -> set[str | None]:
    """The labels whose values a text has as numbers; None is among them for one that it denies or leaves open.

    "4 out of 5" is 4 where 5 is the highest label. Dashes and signs of the text are ASCII (`reading.plain`).
    """
    most = str(max(by_value))
    text = _OUT_OF.sub(lambda found: "" if found["most"] == most else found[0], text)
    named: set[str | None] = set()
    for found in _NUMBER.finditer(text):
        label = _label_of(found, by_value)
        if label is not None:
            named.add(None if label == "" or is_negated(text, found.start(), found.end(), after=False) else label)
    return named


def _label_of(found: re.Match[str], by_value: Mapping[Decimal, str]) -> str | None:
    """The label of a number; an empty text where it may be either of two: "- 1" is an entry of a list, or minus one."""
    minus = (found["sign"] or "+")[0] in "-mMnN"
    value = value_of(("-" if minus else "") + found["value"])
    label = None if value is None else by_value.get(value)
    if value is None or not found["gap"] or found["sign"][0] != "-":
        return label
    entry = by_value.get(-value)
    return "" if label is not None and entry is not None else label or entry
