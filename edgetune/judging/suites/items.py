"""A suite's data -> the items that every model is asked, each with an id by which two models are paired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.data.columns import check_unicode, find_column, shown
from edgetune.data.draw import draw
from edgetune.data.example import Message
from edgetune.data.read import Row, read_rows
from edgetune.errors import DataError, RecipeError
from edgetune.judging.suites.identity import hash_value
from edgetune.judging.suites.item_formats import RowQuestion, check_items, missing_column, question_reader
from edgetune.judging.suites.suite import Suite, SuiteSource

DEFAULT_ID_COLUMN = "id"


@dataclass(frozen=True)
class Item:
    """One question, with its answer where there is one.

    `messages` is what the model is asked (task perplexity: the conversation before the text that is scored, or nothing)
    and `text` what the item is about: the suite's {text}, the last user message, or the text that is scored. `gold` is
    the right label (classify), `references` are right answers. `where` names file and row, without the folder.
    """

    id: str
    where: str
    text: str
    messages: tuple[Message, ...]
    gold: str | None = None
    references: tuple[str, ...] = ()
    cluster: str | None = None


def read_items(suite: Suite) -> tuple[Item, ...]:
    """Read a suite's data; `item_formats` says how a row of each format becomes a question.

    An item's id is what the source's id column holds (a dotted name reaches in), as text: 1, 1.0 and "1" are the same.
    Where there is no column of the default name it is the item's number in the suite, counted from 1.
    generation.system comes before what is asked, but for perplexity and for conversations with a system message of
    their own. `cap` takes so many of a source's rows, the same ones each time.

    Raises RecipeError for a source that the suite cannot read, and DataError naming file and row: what cannot be read,
    an unknown label, an id that is used twice, a missing cluster, no item at all.
    """
    items: list[Item] = []
    seen: dict[str, str] = {}
    for source in suite.data:
        for row, question in _questions(suite, source):
            number = str(len(items) + 1)
            item = Item(
                id=_id(row, source, number),
                where=Path(row.where).name,
                text=question.text,
                messages=_with_system(question.messages, suite),
                gold=question.gold,
                references=question.references,
                cluster=None if suite.cluster is None else _cluster(row, suite.cluster),
            )
            if item.id in seen:
                raise DataError(
                    f"the id {shown(item.id)[1:-1]} is used twice, first at {seen[item.id]}",
                    where=row.where,
                    remedy="give every item an id of its own, or leave the column out",
                )
            seen[item.id] = row.where
            items.append(item)
    if not items:
        raise DataError("the suite has no item: its label maps leave out every row", where=suite.name)
    return tuple(items)


def clusters_of(items: Sequence[Item]) -> tuple[str, ...] | None:
    """Each item's cluster; None where the suite has none."""
    names = tuple(item.cluster for item in items if item.cluster is not None)
    return names or None


def hash_items(items: Sequence[Item]) -> str:
    """SHA-256 of ids, questions, answers and clusters in their order; where the files lie does not matter."""
    return hash_value(
        [
            [
                item.id,
                item.text,
                [[message.role, message.content] for message in item.messages],
                item.gold,
                list(item.references),
                item.cluster,
            ]
            for item in items
        ]
    )


def name_of(value: Any, column: str, where: str) -> str:
    """An id or a cluster's name as text: 1, 1.0 and "1" are the same. Raises DataError, naming `where`, for others."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or str(value) in ("", "nan"):
        raise DataError(f"{column} must hold a name or a number, not {shown(value)}", where=where)
    name = check_unicode(str(value), column, where)
    if any(ord(character) < 32 for character in name):
        raise DataError(f"{column} holds a control character: {shown(name)}", where=where)
    return name


def _questions(suite: Suite, source: SuiteSource) -> Iterator[tuple[Row, RowQuestion]]:
    if source.weight != 1.0:
        raise RecipeError(
            f"weight is {source.weight}, but every item of a suite counts once",
            where=source.source,
            remedy="take weight out, or use cap",
        )
    read = question_reader(suite, source)
    rows = read_rows(source)
    check_items(rows, suite, source)
    asked = [(row, question) for row in rows if (question := read(row)) is not None]
    if source.cap is not None:
        asked = [asked[place] for place in draw(len(asked), source.cap, f"suite:{Path(source.source).name}")]
    yield from asked


def _id(row: Row, source: SuiteSource, number: str) -> str:
    try:
        given = find_column(row.values, source.id)
    except KeyError:
        if source.id == DEFAULT_ID_COLUMN:
            return number
        raise missing_column(row, source.id, "name the column of the ids as the source's id") from None
    if given is None and source.id == DEFAULT_ID_COLUMN:
        return number
    return name_of(given, source.id, row.where)


def _cluster(row: Row, column: str) -> str:
    try:
        return name_of(find_column(row.values, column), column, row.where)
    except KeyError:
        raise missing_column(row, column, "name the column of the clusters as the suite's cluster") from None


def _with_system(messages: tuple[Message, ...], suite: Suite) -> tuple[Message, ...]:
    system = suite.generation.system
    if not system or suite.task == "perplexity" or any(message.role == "system" for message in messages):
        return messages
    return (Message("system", system), *messages)
