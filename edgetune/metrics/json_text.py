"""JSON in answers: whether an answer is JSON for the program that reads it, and where its objects are."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NoReturn

READING = "the whole answer must be JSON (RFC 8259), without a code fence or words around it"

_LONGEST_INTEGER = 4000
"""Digits. Python refuses to read longer ones, which are JSON all the same."""


def parse_json(text: str) -> Any:
    """The value that an answer holds. Raises ValueError when the whole of it is not JSON.

    Strict as RFC 8259: any value may stand at the top, white space around it is allowed, NaN and Infinity are not. A
    fenced code block is not JSON either: a program that calls json.loads on the answer of llama.cpp or of an OpenAI
    endpoint fails on it, and a model that begins to write fences has got worse for that program.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply to be read") from None


def is_json(text: str) -> bool:
    """True when the whole answer is JSON, as `parse_json` reads it."""
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


OBJECT_OPENING = re.compile(r'\{(?=\s*")')
"""Where an object with a key may begin."""

LENIENT = json.JSONDecoder(strict=False)
"""Models put raw line breaks into their strings."""


@lru_cache(maxsize=4)
def object_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Where the complete JSON objects lie in a text, in order; what lies inside another one is left out.

    Objects behind one that is nested too deeply to be read are not looked for.
    """
    found = []
    end = 0
    for opening in OBJECT_OPENING.finditer(text):
        if opening.start() < end:
            continue
        try:
            _, end = LENIENT.raw_decode(text, opening.start())
        except RecursionError:
            break
        except ValueError:
            continue
        found.append((opening.start(), end))
    return tuple(found)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)
