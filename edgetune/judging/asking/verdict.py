"""A judge's text -> its verdict, or the reason why there is none. What cannot be read is unscored, never a low score.

The judge's reasoning is left out first (`data.reasoning`): a draft is no verdict. Then, in this order: the
whole text as one JSON object; the last complete JSON object in it that names a field of the form (after prose, in code
fences, inside another object); the last line `field: choice` of every field, where the judge wrote no JSON at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from edgetune.data.reasoning import blank_reasoning
from edgetune.judging.asking.request import VerdictForm
from edgetune.metrics.json_text import LENIENT, OBJECT_OPENING, object_spans

MOST_CHARACTERS = 32_000
"""Only the end of a longer text is read: verdicts come last, and a judge in a loop must not delay a run."""

Value = int | str

_DECORATION = r"[ \t>*_#\-•\"'`]*"
_AROUND = " \t\r*_\"'`.,;"
"""What may stand around a choice on its line."""


@dataclass(frozen=True)
class ParsedVerdict:
    """One choice for every field of the form, and the judge's reason. `values` is None where `problem` says why.

    `places` says where in the text each value begins, behind quotation marks and spaces.
    """

    values: dict[str, Value] | None
    reason: str = ""
    problem: str | None = None
    places: dict[str, int] = field(default_factory=dict)


def parse_verdict(text: str, form: VerdictForm) -> ParsedVerdict:
    """Read the verdict in a judge's text. Never raises."""
    told = blank_reasoning(text).rstrip()
    if not told.strip():
        problem = "the judge's text ended before its verdict" if text.strip() else "the judge wrote nothing"
        return ParsedVerdict(None, problem=problem)
    start = max(0, len(told) - MOST_CHARACTERS)
    verdict = _read(told[start:], form)
    return replace(verdict, places={name: start + place for name, place in verdict.places.items()})


def _read(text: str, form: VerdictForm) -> ParsedVerdict:
    last = None
    for found in _objects(text):
        if any(_named(found, name) for name in form.fields):
            last = found
    if last is not None:
        return _from_object(text, last, form)
    if OBJECT_OPENING.search(text):
        return ParsedVerdict(None, problem="the judge's JSON is not complete or holds no verdict")
    return _from_lines(text, form)


_SPACE = re.compile(r"[ \t\n\r]*")


class _Member(NamedTuple):
    """One name and value of a JSON object, and where the value begins; of a repeated name there are several."""

    name: str
    value: Any
    place: int


def _objects(text: str) -> Iterator[list[_Member]]:
    """All complete JSON objects in the order of the text; inner objects come before the outer ones."""
    for start, _ in object_spans(text):
        found: list[list[_Member]] = []
        try:
            _walk(text, start, found)
        except RecursionError:
            return  # a judge in a loop; what stands inside so many braces is no verdict
        yield from found


def _walk(text: str, place: int, found: list[list[_Member]]) -> tuple[Any, int]:
    """The value that begins at this place of well-formed JSON, and where it ends; objects on the way go to `found`."""
    if text[place] not in "{[":
        return LENIENT.raw_decode(text, place)
    members: list[_Member] = []
    keyed = text[place] == "{"
    while True:
        place = _skip(text, place + 1)  # over the bracket or the comma
        if text[place] in "}]":
            break
        name = ""
        if keyed:
            name, place = LENIENT.raw_decode(text, place)
            place = _skip(text, _skip(text, place) + 1)
        value, end = _walk(text, place, found)
        members.append(_Member(name, value, place))
        place = _skip(text, end)
        if text[place] in "}]":
            break
    if keyed:
        found.append(members)
    return members, place + 1


def _skip(text: str, place: int) -> int:
    space = _SPACE.match(text, place)
    assert space is not None
    return space.end()


def _named(members: list[_Member], name: str) -> list[_Member]:
    return [member for member in members if member.name.lower() == name]


def _from_object(text: str, members: list[_Member], form: VerdictForm) -> ParsedVerdict:
    reasons = [member.value for member in _named(members, "reason") if isinstance(member.value, str)]
    reason = reasons[-1].strip() if reasons else ""
    values: dict[str, Value] = {}
    places: dict[str, int] = {}
    for name, choices in form.fields.items():
        given = _named(members, name)
        if not given:
            return ParsedVerdict(None, reason, f"the judge's verdict has no {name}")
        chosen = [_choice(member.value, choices) for member in given]
        if len(set(chosen)) > 1:
            return ParsedVerdict(None, reason, f"the judge's verdict gives {name} twice and differently")
        if chosen[0] is None:
            shown = _shown(given[0].value)
            return ParsedVerdict(
                None, reason, f"the judge's verdict has {name} {shown}, which is not one of the choices"
            )
        values[name], places[name] = chosen[0], _start_of(text, given[-1].place)
    return ParsedVerdict(values, reason, places=places)


def _start_of(text: str, place: int) -> int:
    """Where a value's own text begins, after quotation marks and spaces."""
    while place < len(text) - 1 and text[place] in _AROUND:
        place += 1
    return place


def _choice(value: Any, choices: tuple[Value, ...]) -> Value | None:
    """The choice that a JSON value means: 4, 4.0, "4", "4.0", "4 / 5", "4 out of 5", "First"; None where it means none.

    Digits of other scripts are digits, and a decimal comma is a point. Number words and halves are no choice.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    written = str(value).strip().casefold()
    same = next((choice for choice in choices if str(choice).casefold() == written), None)
    if same is not None or not isinstance(choices[0], int):
        return same
    number = re.fullmatch(rf"(\d{{1,9}})(?:[.,]0*)?(?:\s*(?:/|out of)\s*{max(choices)}(?:[.,]0*)?)?", written)
    return None if number is None else next((choice for choice in choices if choice == int(number[1])), None)


def _from_lines(text: str, form: VerdictForm) -> ParsedVerdict:
    values: dict[str, Value] = {}
    places: dict[str, int] = {}
    for name, choices in form.fields.items():
        line = re.compile(
            rf"^{_DECORATION}{re.escape(name)}[ \t*_\"'`]*[:=]([^\n]*)$",
            re.IGNORECASE | re.MULTILINE,
        )
        lines = list(line.finditer(text))
        if not lines:
            return ParsedVerdict(None, problem=f"the judge's text holds no verdict on {name}")
        said = lines[-1][1].strip(_AROUND)
        chosen = _choice(said, choices)
        if chosen is None:
            return ParsedVerdict(
                None, problem=f"the judge's verdict has {name} {_shown(said)}, which is not one of the choices"
            )
        values[name], places[name] = chosen, _start_of(text, lines[-1].start(1))
    reason = re.search(rf"^{_DECORATION}reason[ \t*_\"'`]*[:=]([^\n]*)$", text, re.I | re.M)
    return ParsedVerdict(values, reason[1].strip(_AROUND) if reason else "", places=places)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else "an object" if isinstance(value, list) else str(value)
    return repr(text[:40])
