"""Rows of published data sets of people's votes -> GoldItems. Which data set it is shows in its columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.data.columns import to_text
from edgetune.data.example import Message
from edgetune.data.read import Row
from edgetune.errors import DataError
from edgetune.judging.calibration.gold import GoldItem
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.rubric import SCALE

_FIRST = ("1", "a", "first", "model_a", "output_1", "response1")
_SECOND = ("2", "b", "second", "model_b", "output_2", "response2")
_TIE = ("0", "tie", "both", "neither", "tie (inconsistent)", "tie (bothbad)", "same")


@dataclass(frozen=True)
class GoldFormat:
    """A data set's shape: the columns that it is known by, and how its rows are read."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Sequence[Row], str], Iterator[GoldItem]]


def find_format(row: Row) -> GoldFormat:
    """The format whose columns a row has. Raises DataError that lists the columns and the known forms."""
    for known in FORMATS:
        if all(column in row.values for column in known.columns):
            return known
    seen = ", ".join(row.values)
    shapes = "; ".join(f"{known.name} ({', '.join(known.columns)})" for known in FORMATS)
    raise DataError(
        f"these columns are not a known form of votes: {seen}", where=row.where, remedy=f"known forms are {shapes}"
    )


def _by_row(read: Callable[[Row, str], GoldItem]) -> Callable[[Sequence[Row], str], Iterator[GoldItem]]:
    """The reader of a data set in which each row is an item; the item's name is the file's and the row's number."""

    def read_all(rows: Sequence[Row], name: str) -> Iterator[GoldItem]:
        return (read(row, f"{name}:{number}") for number, row in enumerate(rows, start=1))

    return read_all


def _read_llmbar(row: Row, name: str) -> GoldItem:
    return _pair(row, name, _asked(row, "input"), ("output_1", "output_2"), [_vote(row, "label")])


def _read_pandalm(row: Row, name: str) -> GoldItem:
    votes = [_vote(row, column) for column in sorted(row.values) if column.startswith("annotator")]
    parts = [_text(row, "instruction"), to_text(row.values.get("input") or "", "input", row.where)]
    asked = (Message("user", "\n\n".join(part for part in parts if part.strip())),)
    return _pair(row, name, asked, ("response1", "response2"), votes)


def _read_chosen(row: Row, name: str) -> GoldItem:
    """The better answer has its own column, so which comes first is drawn from the row itself: were it always the
    first, agreement beyond chance could not be measured."""
    asked = _asked(row, "prompt")
    chosen, rejected = _last_turn(row, "chosen"), _last_turn(row, "rejected")
    number = name.rpartition(":")[2]
    chosen_first = hashlib.sha256(f"{number}\n{chosen}\n{rejected}".encode("utf-8", "replace")).digest()[0] % 2 == 0
    answers = (chosen, rejected) if chosen_first else (rejected, chosen)
    return GoldItem(_item(row, name, asked), answers, (1.0 if chosen_first else -1.0,))


def _read_votes(rows: Sequence[Row], name: str) -> Iterator[GoldItem]:
    """One row a vote; votes on the same two conversations are one item. The first user message is the question, and
    what follows it is the answer: the assistant's turn, or all turns where there are several."""
    groups: dict[tuple[tuple[Message, ...], str, str], list[tuple[Row, float]]] = {}
    for row in rows:
        asked, first = _conversation(row, "conversation_a")
        other, second = _conversation(row, "conversation_b")
        if asked != other:
            raise DataError("conversation_a and conversation_b begin with different questions", where=row.where)
        groups.setdefault((asked, first, second), []).append((row, _vote(row, "winner")))
    for number, ((asked, first, second), votes) in enumerate(groups.items(), start=1):
        item = _item(votes[0][0], f"{name}:{number}", asked)
        yield GoldItem(item, (first, second), tuple(vote for _, vote in votes))


def _read_plain_pairs(row: Row, name: str) -> GoldItem:
    return _pair(row, name, _asked(row, "prompt"), ("a", "b"), [_vote(row, "label")])


def _read_grades(row: Row, name: str) -> GoldItem:
    columns = [column for column in row.values if column == "score" or column.startswith("score_")]
    votes = tuple(_grade(row, column) for column in columns if row.values[column] not in (None, ""))
    if not votes:
        raise DataError("no score is given", where=row.where)
    return GoldItem(_item(row, name, _asked(row, "prompt")), (_text(row, "answer"),), votes)


FORMATS = (
    GoldFormat("MT-bench", ("conversation_a", "conversation_b", "winner"), _read_votes),
    GoldFormat("LLMBar", ("input", "output_1", "output_2", "label"), _by_row(_read_llmbar)),
    GoldFormat("PandaLM", ("instruction", "response1", "response2", "annotator1"), _by_row(_read_pandalm)),
    GoldFormat("RewardBench", ("prompt", "chosen", "rejected"), _by_row(_read_chosen)),
    GoldFormat("pairs", ("prompt", "a", "b", "label"), _by_row(_read_plain_pairs)),
    GoldFormat("grades", ("prompt", "answer", "score"), _by_row(_read_grades)),
)
"""In the order in which they are tried."""


def _pair(
    row: Row, name: str, asked: tuple[Message, ...], columns: tuple[str, str], votes: Sequence[float]
) -> GoldItem:
    return GoldItem(_item(row, name, asked), (_text(row, columns[0]), _text(row, columns[1])), tuple(votes))


def _item(row: Row, name: str, asked: tuple[Message, ...]) -> Item:
    return Item(id=name, where=row.where, text=asked[-1].content, messages=asked)


def _text(row: Row, column: str) -> str:
    """A text. Answers such as 42 and True have become numbers and truth values in published files."""
    value = row.values.get(column)
    return str(value) if isinstance(value, bool | int | float) else to_text(value, column, row.where)


def _asked(row: Row, column: str) -> tuple[Message, ...]:
    """A question that is a text, or a list of messages."""
    value = row.values.get(column)
    if isinstance(value, list):
        return tuple(_turns(value, column, row.where))
    return (Message("user", _text(row, column)),)


def _turns(value: Any, column: str, where: str) -> Iterator[Message]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{column} must be a list of messages with role and content", where=where)
    for turn in value:
        if not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn:
            raise DataError(f"{column} must be a list of messages with role and content", where=where)
        if turn.get("tool_calls"):
            raise DataError(
                f"{column} calls tools, which are not shown to judges", where=where, remedy="remove the row"
            )
        yield Message(str(turn["role"]), to_text(turn["content"], f"{column}.content", where))


def _last_turn(row: Row, column: str) -> str:
    value = row.values.get(column)
    return list(_turns(value, column, row.where))[-1].content if isinstance(value, list) else _text(row, column)


def _conversation(row: Row, column: str) -> tuple[tuple[Message, ...], str]:
    turns = list(_turns(row.values.get(column), column, row.where))
    if row.values.get("turn") in (1, "1"):  # MT-bench keeps both turns and says which was voted on
        turns = turns[:2]
    start = next((number for number, turn in enumerate(turns) if turn.role == "assistant"), len(turns))
    asked, answered = tuple(turns[:start]), turns[start:]
    if not asked or not answered:
        raise DataError(f"{column} must hold a question and an answer", where=row.where)
    if len(answered) == 1:
        return asked, answered[0].content
    return asked, "\n\n".join(f"{turn.role}: {turn.content}" for turn in answered)


def _vote(row: Row, column: str) -> float:
    written = _written(row, column).lower().removesuffix(".0")
    for value, spellings in ((1.0, _FIRST), (-1.0, _SECOND), (0.0, _TIE)):
        if written in spellings:
            return value
    raise DataError(f"{column} is {written[:40]!r}; it must be 1 or a, 2 or b, or 0 or tie", where=row.where)


def _written(row: Row, column: str) -> str:
    value = row.values.get(column)
    return "" if value is None or isinstance(value, bool) else str(value).strip()


def _grade(row: Row, column: str) -> float:
    written = _written(row, column)
    try:
        grade = float(written)
    except ValueError:
        grade = float("nan")
    if not SCALE[0] <= grade <= SCALE[-1]:
        raise DataError(
            f"{column} is {written[:40]!r}; grades run from {SCALE[0]} to {SCALE[-1]}",
            where=row.where,
            remedy="convert other scales to this one first",
        )
    return grade
