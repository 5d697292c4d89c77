"""A judge's text -> its verdict, or the reason why there is none. What cannot be read is unscored, never a low score.

In this order: the whole text as one JSON object; the last complete JSON object in it that names a field of the form
(after prose, in code fences, inside another object); the last line `field: choice` of every field, where the judge
wrote no JSON at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgetune.judging.asking.request import VerdictForm

MOST_CHARACTERS = 32_000
"""Only the end of a longer text is read: verdicts come last, and a judge in a loop must not hold up a run."""

Value = int | str

_DECORATION = r"[ \t>*_#\-•\"'`]*"
_AROUND = " \t\r*_\"'`.,;"
"""What may stand around a choice on its line."""


@dataclass(frozen=True)
class ParsedVerdict:
    """One choice for every field of the form, and the judge's reason. `values` is None where `problem` says why."""

    values: dict[str, Value] | None
    reason: str = ""
    problem: str | None = None


def parse_verdict(text: str, form: VerdictForm) -> ParsedVerdict:
    """Read the verdict in a judge's text. Never raises."""
    text = text.strip()
    if text.startswith("<think>"):  # what some models say to themselves; tags further on are quotes
        text = text.partition("</think>")[2]
        if not text.strip():
            return ParsedVerdict(None, problem="the judge's text ended before its verdict")
    text = text[-MOST_CHARACTERS:]
    if not text.strip():
        return ParsedVerdict(None, problem="the judge wrote nothing")
    last = None
    for found in _objects(text):
        if any(_named(found, name) for name in form.fields):
            last = found
    if last is not None:
        return _from_object(last, form)
    if _OPENING.search(text):
        return ParsedVerdict(None, problem="the judge's JSON is not complete or holds no verdict")
    return _from_lines(text, form)


_OPENING = re.compile(r'\{(?=\s*")')
"""Where an object with a key may begin."""


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with repeated keys kept."""


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, strict=False)
"""strict=False: judges put raw line breaks into their reasons."""


def _objects(text: str) -> Iterator[_Pairs]:
    """All complete JSON objects in the order of the text, those inside others before the ones that hold them."""
    end = 0
    for opening in _OPENING.finditer(text):
        if opening.start() < end:
            continue
        try:
            value, end = _DECODER.raw_decode(text, opening.start())
        except RecursionError:
            return  # a judge in a loop; what stands inside so many braces is no verdict
        except ValueError:
            continue
        yield from _nested(value)


def _nested(value: Any) -> Iterator[_Pairs]:
    pending, found = [value], []
    while pending:
        current = pending.pop()
        if isinstance(current, _Pairs):
            found.append(current)
            pending.extend(inner for _, inner in current)
        elif isinstance(current, list):
            pending.extend(current)
    yield from reversed(found)


def _named(pairs: _Pairs, name: str) -> list[Any]:
    return [value for key, value in pairs if key.lower() == name]


def _from_object(pairs: _Pairs, form: VerdictForm) -> ParsedVerdict:
    reasons = [value for value in _named(pairs, "reason") if isinstance(value, str)]
    reason = reasons[-1].strip() if reasons else ""
    values: dict[str, Value] = {}
    for name, choices in form.fields.items():
        given = _named(pairs, name)
        if not given:
            return ParsedVerdict(None, reason, f"the judge's verdict has no {name}")
        chosen = [_choice(value, choices) for value in given]
        if len(set(chosen)) > 1:
            return ParsedVerdict(None, reason, f"the judge's verdict gives {name} twice and differently")
        if chosen[0] is None:
            return ParsedVerdict(None, reason, f"the judge's verdict has {name} {_shown(given[0])}, which is no choice")
        values[name] = chosen[0]
    return ParsedVerdict(values, reason)


def _choice(value: Any, choices: tuple[Value, ...]) -> Value | None:
    """The choice that a JSON value means: 4, 4.0, "4", "4/5", "First"; None where it means none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    written = str(value).strip().casefold() if isinstance(value, int | str) else ""
    scale = f"/{max(choices)}" if isinstance(choices[0], int) else None
    if scale is not None:
        written = re.sub(r"\s*(?:/|out of)\s*", "/", written).removesuffix(scale)
    return next((choice for choice in choices if str(choice).casefold() == written), None)


def _from_lines(text: str, form: VerdictForm) -> ParsedVerdict:
    values: dict[str, Value] = {}
    for name, choices in form.fields.items():
        spelled = "|".join(re.escape(str(choice)) for choice in sorted(choices, key=lambda c: -len(str(c))))
        scale = rf"(?:\s*(?:/|out of)\s*{max(choices)})?" if isinstance(choices[0], int) else ""
        line = re.compile(
            rf"^{_DECORATION}{re.escape(name)}[ \t*_\"'`]*[:=]([^\n]*)$",
            re.IGNORECASE | re.MULTILINE,
        )
        said = [choice.strip(_AROUND) for choice in line.findall(text)]
        if not said:
            return ParsedVerdict(None, problem=f"the judge's text holds no verdict on {name}")
        if not re.fullmatch(rf"(?:{spelled}){scale}", said[-1], re.IGNORECASE):
            return ParsedVerdict(None, problem=f"the judge's verdict has {name} {_shown(said[-1])}, which is no choice")
        chosen = _choice(said[-1], choices)
        assert chosen is not None
        values[name] = chosen
    reason = re.search(rf"^{_DECORATION}reason[ \t*_\"'`]*[:=]([^\n]*)$", text, re.I | re.M)
    return ParsedVerdict(values, reason[1].strip(_AROUND) if reason else "")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else "an object" if isinstance(value, list) else str(value)
    return repr(text[:40])
