"""Columns of a row by name, including values inside objects and lists, and their values as text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from edgetune.errors import DataError

_INVISIBLE = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + "\u200b\u2060\ufeff"


def find_column(values: Any, name: str) -> Any:
    """The value under `name`; `context.contexts` is the value of `contexts` in the object `context`.

    A column whose own name has dots goes first. In a list, a number selects an item, counted from 0, and any other name
    is looked up in every item. Raises KeyError if there is no such column.
    """
    if isinstance(values, Mapping):
        if name in values:
            return values[name]
        for head in _heads(name):
            if head in values:
                return find_column(values[head], name[len(head) + 1 :])
    if isinstance(values, list):
        head, _, rest = name.partition(".")
        if not head.isdecimal():
            return [find_column(item, name) for item in values]
        if int(head) < len(values):
            return find_column(values[int(head)], rest) if rest else values[int(head)]
    raise KeyError(name)


def locate_column(values: Mapping[str, Any], name: str, *, ignore_case: bool = False) -> str:
    """`name`, or the only column whose name differs from it only in outer spaces or Unicode form (or case)."""
    if name in values or any(head in values for head in _heads(name)):
        return name
    wanted = normalize_name(name, ignore_case=ignore_case)
    same = [column for column in values if normalize_name(str(column), ignore_case=ignore_case) == wanted]
    return same[0] if len(same) == 1 else name


def normalize_name(name: str, *, ignore_case: bool = False) -> str:
    """A label or column name without invisible differences: outer, double and zero-width spaces, Unicode form."""
    seen = " ".join(unicodedata.normalize("NFC", name).strip(_INVISIBLE).split())
    return unicodedata.normalize("NFC", seen.casefold()) if ignore_case else seen


def column_names(values: Mapping[str, Any]) -> Iterator[str]:
    """Every name that `find_column` knows, columns before their contents; names inside lists are left out."""
    yield from values
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in column_names(value))


def to_text(value: Any, column: str, where: str) -> str:
    """A text, or the texts of a list joined by line breaks. Raises DataError, naming `where`, for anything else."""
    if isinstance(value, str):
        return check_unicode(value, column, where)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return check_unicode("\n".join(value), column, where)
    raise DataError(f"{column} must hold text, not {shown(value)}", where=where)


def check_unicode(text: str, column: str, where: str) -> str:
    """The text. Raises DataError for an unpaired surrogate, which JSON can contain and no tokenizer can read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as problem:
        half = ord(text[problem.start])
        raise DataError(
            f"{column} contains an unpaired surrogate (\\u{half:04x})",
            where=where,
            remedy="write the whole character, or remove it",
        ) from None
    return text


def shown(value: Any) -> str:
    """A value for an error message; long ones are cut."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _heads(name: str) -> Iterator[str]:
    """The part before each dot of a name, shortest first."""
    for place, letter in enumerate(name):
        if letter == ".":
            yield name[:place]
