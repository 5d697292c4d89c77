"""report.json: the whole judgement as plain values, which also serves as a baseline later."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from edgetune import __version__
from edgetune.judging.gate.explanation import explain
from edgetune.judging.results.baseline import REPORT_FORMAT
from edgetune.judging.results.endings import count_endings
from edgetune.judging.results.judgement import METRICS_KEY, Evaluation, Judgement

_SURROGATE = re.compile("[\ud800-\udfff]")

_BROKEN_LEVELS = 3
"""Of report.json: what lies deeper stands on one line, so that an answer is a line and a large file is quick."""


def report_document(judgement: Judgement) -> dict[str, Any]:
    """The whole judgement as plain values for JSON. As a baseline, its candidate is the one that counts.

    Where the suite's data lie on this machine is left out; its hash is among `hashes`.
    """
    plain: dict[str, Any] = _plain(_document(judgement))
    return plain


def report_lines(judgement: Judgement) -> Iterator[str]:
    """`report_document` as the text of report.json, piece by piece: of 50,000 items it is some 40 MB long.

    Raises ValueError for numbers that are not finite.
    """
    yield from _broken(_document(judgement), _BROKEN_LEVELS, "\n")
    yield "\n"


def json_text(value: Any) -> str:
    """JSON on one line that can be encoded as UTF-8 whatever a model wrote: an unpaired surrogate stays an escape.

    Dataclasses are written as objects. Raises ValueError for numbers that are not finite.
    """
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", _ENCODER.encode(value))


def _document(judgement: Judgement) -> dict[str, Any]:
    verdict = judgement.verdict
    return {
        "format": REPORT_FORMAT,
        "edgetune": __version__,
        "created": judgement.created,
        "suite": judgement.suite.model_dump(mode="json", exclude={"data"}),
        "hashes": judgement.hashes,
        "exit_code": judgement.exit_code,
        "inconclusive": judgement.inconclusive,
        "verdict": None
        if verdict is None
        else {
            **_fields(verdict),
            "reason": verdict.reason,
            "comparisons": [
                {**_fields(comparison), "explanation": explain(comparison)} for comparison in verdict.comparisons
            ],
        },
        "differences": judgement.differences,
        "judges": judgement.judges,
        "costs": judgement.costs,
        "notes": judgement.notes,
        "details": judgement.details,
        "items": judgement.items,
        "candidate": judgement.candidate,
        "baseline": judgement.baseline,
        "endings": {
            "candidate": count_endings(judgement.candidate.answers),
            "baseline": None if judgement.baseline is None else count_endings(judgement.baseline.answers),
        },
        "preferences": judgement.preferences,
    }


def _broken(value: Any, levels: int, newline: str) -> Iterator[str]:
    """JSON whose objects are broken into lines down to so many levels; each member of a list is one line."""
    if is_dataclass(value):
        value = _fields(value)
    if levels == 0 or not isinstance(value, dict | list | tuple) or not value:
        yield json_text(value)
        return
    inner = newline + "  "
    if isinstance(value, dict):
        for place, (name, member) in enumerate(value.items()):
            yield f"{'{' if place == 0 else ','}{inner}{json_text(name)}: "
            yield from _broken(member, levels - 1, inner)
        yield newline + "}"
    else:
        for place, member in enumerate(value):
            yield f"{'[' if place == 0 else ','}{inner}{json_text(member)}"
        yield newline + "]"


def _plain(value: Any) -> Any:
    """The value with dictionaries in the place of dataclasses, all the way down."""
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    return {name: _plain(member) for name, member in _fields(value).items()} if is_dataclass(value) else value


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass's fields by the names that they are written with, as they are."""
    fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
    if not isinstance(value, Evaluation):
        return fields
    return {METRICS_KEY if name == "metrics" else name: member for name, member in fields.items()}


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_fields)
