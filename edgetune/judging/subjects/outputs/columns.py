"""The columns of a file of outputs.

`id` is the item's. The output is in one of `OUTPUT_COLUMNS`. Task classify takes the label from `predicted`, else the
one that the output's text names, else the likeliest of `log_probabilities` (nats by label), else `label`: that goes
last, because a file that was made by adding outputs to a data set still has the right labels there. Task perplexity
reads `nll_nats`, with `nll_tokens` (without it there are only bits per byte) and `nll_bytes` (by default the bytes of
the item's text). `finish` (or `finish_reason`) says why an output ended, and `reasoning_content` what the model said to
itself before it, where that is not in the output.

Conversations and completions (`chats`) and sample files (`lm_eval_samples`) are made such rows first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgetune.data.columns import check_unicode, shown
from edgetune.data.read import Row
from edgetune.errors import DataError
from edgetune.judging.asking.completion import finish_of
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.outputs.chats import FINISH, REASONING
from edgetune.judging.subjects.outputs.lm_eval_samples import CHOICES
from edgetune.judging.subjects.written import written_answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.runtime.labels.reading import match_label

ID = "id"

OUTPUT_COLUMNS = ("output", "answer", "response", "prediction", "completion", "generated_text")

LABEL = "label"

_PREDICTED, _LOG_PROBABILITIES = "predicted", "log_probabilities"
_FINISHES = (FINISH, "finish_reason")
_NUMBERS = ("nll_nats", "nll_tokens", "nll_bytes")


@dataclass(frozen=True)
class Columns:
    """The columns with the model's text, and with labels that are used as they are; None where there is none."""

    output: str | None
    label: str | None


def find_columns(rows: Sequence[Mapping[str, Any]], where: str) -> Columns:
    """The columns that are used. Raises DataError that names the columns, for several outputs or for none."""
    columns = list(dict.fromkeys(column for values in rows for column in values))
    found = [column for column in OUTPUT_COLUMNS if column in columns]
    if len(found) > 1:
        raise DataError(
            f"{' and '.join(found)} could all be the model's outputs", where=where, remedy="leave one of them"
        )
    likelihoods = _LOG_PROBABILITIES in columns or "nll_nats" in columns
    label = _PREDICTED if _PREDICTED in columns else None
    if label is None and LABEL in columns and not found and not likelihoods:
        label = LABEL
    if not (found or label or likelihoods):
        raise DataError(
            f"there is no column of outputs; the columns are {', '.join(columns)}",
            where=where,
            remedy=f"name it output ({', '.join(OUTPUT_COLUMNS[1:])} also work)",
        )
    return Columns(found[0] if found else None, label)


def read_fields(row: Row, columns: Columns) -> dict[str, Any]:
    """A row's outputs as plain values, which are the same from every kind of file.

    Raises DataError naming the row.
    """
    fields: dict[str, Any] = {}
    if columns.output is not None:
        fields["output"] = _text(row, columns.output)
    if columns.label is not None:
        fields["label"] = _label_text(row, columns.label)
    for column in _NUMBERS:
        if row.values.get(column) not in (None, ""):
            fields[column] = _number(row.values[column], column, row.where, whole=column != "nll_nats")
    finish = next((row.values[column] for column in _FINISHES if row.values.get(column)), None)
    if isinstance(finish, str):
        fields[FINISH] = finish_of(finish)
    if CHOICES in row.values and _is_choices(row.values[CHOICES]):
        fields[CHOICES] = row.values[CHOICES]
    if row.values.get(_LOG_PROBABILITIES) not in (None, ""):
        fields[_LOG_PROBABILITIES] = _log_probabilities(row)
    return fields


def to_answer(row: Row, item: Item, suite: Suite, columns: Columns) -> Answer:
    """The answer that a row holds, for the suite's task. Raises DataError naming the row."""
    fields = read_fields(row, columns)
    if suite.task == "classify":
        return _labelled(row, item, suite, fields)
    if suite.task == "perplexity":
        return _scored(row, item, fields)
    if columns.output is None:
        raise _lacks(row, "output", suite)
    return written_answer(item.id, fields["output"], suite, **_circumstances(row, fields))


def _labelled(row: Row, item: Item, suite: Suite, fields: dict[str, Any]) -> Answer:
    by_label: dict[str, float] | None = fields.get(_LOG_PROBABILITIES)
    named = None if by_label is None else {match_label(name, suite.labels): nats for name, nats in by_label.items()}
    if by_label is not None and named is not None and (set(named) != set(suite.labels) or len(named) < len(by_label)):
        raise DataError(
            f"{_LOG_PROBABILITIES} are of {', '.join(by_label)}, and the suite's labels are {', '.join(suite.labels)}",
            where=row.where,
        )
    if named is not None:
        by_label = {label: named[label] for label in suite.labels}
    if CHOICES in fields:
        return _chosen(row, item, suite, fields[CHOICES])
    given = fields.get("label")
    text = fields.get("output", given)
    if text is None:
        if by_label is None:
            raise _lacks(row, _PREDICTED, suite)
        predicted = max(suite.labels, key=by_label.__getitem__)
        return Answer(item.id, predicted=predicted, log_probabilities=by_label, finish=fields.get(FINISH))
    answer = written_answer(item.id, text, suite, log_probabilities=by_label, **_circumstances(row, fields))
    return answer if given is None else replace(answer, predicted=match_label(given, suite.labels))


def _circumstances(row: Row, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Why the text ended, and the reasoning before it, as far as the row says so."""
    reasoning = row.values.get(REASONING)
    return {"finish": fields.get(FINISH), "reasoning": reasoning if isinstance(reasoning, str) else ""}


def _chosen(row: Row, item: Item, suite: Suite, choices: Sequence[tuple[str, float]]) -> Answer:
    """The likeliest of the continuations that were compared: labels themselves, or the texts of numbered options."""
    labels = [match_label(text, suite.labels) for text, _ in choices]
    if None in labels or len(set(labels)) < len(labels):
        if len(choices) > len(suite.labels) or not _are_places(suite.labels):
            raise DataError(
                f"the continuations are {', '.join(text for text, _ in choices)[:80]}, and the suite's labels are "
                f"{', '.join(suite.labels)}",
                where=row.where,
                remedy="give the suite the continuations as labels, or letters (A, B, ...) or numbers of options",
            )
        labels = list(suite.labels[: len(choices)])
    scores = {label: nats for label, (_, nats) in zip(labels, choices, strict=True) if label is not None}
    best = max(scores, key=scores.__getitem__)
    whole = {label: scores[label] for label in suite.labels} if len(scores) == len(suite.labels) else None
    return Answer(item.id, text=choices[labels.index(best)][0], predicted=best, log_probabilities=whole)


def _are_places(labels: Sequence[str]) -> bool:
    """True for labels that number options: A, B, C ... or 0, 1, 2 ... or 1, 2, 3 ..."""
    letters = [chr(ord("A") + place) for place in range(len(labels))]
    numbers = [[str(place + first) for place in range(len(labels))] for first in (0, 1)]
    return [label.upper() for label in labels] == letters or list(labels) in numbers


def _is_choices(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(pair, tuple) for pair in value)


def _scored(row: Row, item: Item, fields: dict[str, Any]) -> Answer:
    if "nll_nats" not in fields:
        raise DataError(
            "task perplexity needs nll_nats, the negative log-likelihood of the item's text in nats", where=row.where
        )
    size = len(item.text.encode())
    if fields.get("nll_bytes", size) != size:
        raise DataError(
            f"nll_bytes is {fields['nll_bytes']}, but the text of item {item.id} has {size} bytes",
            where=row.where,
            remedy="score the item's text as it is",
        )
    return Answer(item.id, nll_nats=fields["nll_nats"], nll_tokens=fields.get("nll_tokens"), nll_bytes=size)


def _label_text(row: Row, column: str) -> str:
    if column not in row.values:
        raise DataError(f"this row has no {column}, and others have", where=row.where)
    value = _written_number(row.values[column])
    if value is not None and not isinstance(value, str | int | float):
        raise DataError(f"{column} must hold a label, not {shown(value)}", where=row.where)
    return "" if value is None else check_unicode(str(value), column, row.where)


def _written_number(value: Any) -> Any:
    """A number as text, a whole one without a point: 1 and 1.0 are what a table writes as 1. Others as they are."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    return str(value)


def _text(row: Row, column: str) -> str:
    value = _written_number(row.values.get(column))
    if not isinstance(value, str):
        raise DataError(
            f"{column} must hold text, not {shown(value)}",
            where=row.where,
            remedy="write what the model wrote as text, and an empty answer as an empty text",
        )
    return check_unicode(value, column, row.where)


def _log_probabilities(row: Row) -> dict[str, float]:
    """Nats by label: an object, or an object written as JSON (in .csv and .tsv)."""
    found = row.values[_LOG_PROBABILITIES]
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            found = row.values[_LOG_PROBABILITIES]
    if not isinstance(found, dict) or not found:
        raise DataError(f"{_LOG_PROBABILITIES} must hold nats by label, not {shown(found)}", where=row.where)
    return {
        label: float(_number(value, f"{_LOG_PROBABILITIES} of {label}", row.where, whole=False))
        for label, value in found.items()
    }


def _number(value: Any, column: str, where: str, *, whole: bool) -> float | int:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not math.isfinite(number) or (whole and (number < 0 or not number.is_integer())):
        kind = "a whole number" if whole else "a finite number"
        raise DataError(f"{column} must be {kind}, not {shown(value)}", where=where)
    return int(number) if whole else number


def _lacks(row: Row, column: str, suite: Suite) -> DataError:
    return DataError(f"task {suite.task} needs a column {column}; there are {', '.join(row.values)}", where=row.where)
