"""Rows of a suite's data -> questions with their answers, one small function per data format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.data.columns import check_unicode, column_names, find_column, shown, to_text
from edgetune.data.convert import check_rows
from edgetune.data.example import Example, Message
from edgetune.data.formats import FORMATS, check_maps, to_example
from edgetune.data.read import Row
from edgetune.errors import DataError, RecipeError
from edgetune.judging.suites.suite import Suite, SuiteSource
from edgetune.recipe.data import Data
from edgetune.recipe.yaml_input import nearest


@dataclass(frozen=True)
class RowQuestion:
    """A row's question and right answers; the fields are those of an item."""

    text: str
    messages: tuple[Message, ...]
    gold: str | None = None
    references: tuple[str, ...] = ()


_OWN_COLUMNS = {"prompt": ("prompt", "reference", "system"), "text": ("text",)}
"""The columns of the formats that training does not have."""


_TASKS = {"classify": "classify", "summarize": "summarize", "generate": "chat", "perplexity": "chat"}
"""A suite's task -> the task of training whose formats it reads."""


def question_reader(suite: Suite, source: SuiteSource) -> Callable[[Row], RowQuestion | None]:
    """What reads the rows of one of the suite's sources; None for a row that the label map leaves out.

    classify and summarize fill the suite's prompt, by default the text by itself, as in training. generate asks what
    comes before a conversation's last answer, which is the reference; a conversation that ends with the user has none,
    nor has an empty answer. perplexity scores the last answer after what comes before it. A prompt's `reference` is a
    text, a list of texts, or nothing.

    Raises RecipeError when the source maps a column or a label that nobody reads; the reader raises DataError naming
    the row.
    """
    if source.format in _OWN_COLUMNS:
        _check_columns(source)
        read = _read_prompt if source.format == "prompt" else _read_text
        return lambda row: read(row, source)
    if _TASKS[suite.task] not in FORMATS[source.format].tasks:
        raise RecipeError(f"format {source.format} holds no items of task {suite.task}", where=source.source)
    data = _data_of(suite)
    check_maps(source, data)
    build = {"classify": _labelled, "summarize": _summarized, "generate": _asked, "perplexity": _scored}[suite.task]
    return lambda row: build(to_example(row, source, data, may_be_open=suite.task == "generate"))


def check_items(rows: Sequence[Row], suite: Suite, source: SuiteSource) -> None:
    """Raise one DataError about all columns that no row has, or else about all values that are no label."""
    if source.format in FORMATS:
        check_rows(rows, source, _data_of(suite))


def _data_of(suite: Suite) -> Data:
    """The suite's data as training reads them."""
    trained = [other for other in suite.data if other.format in FORMATS]
    return Data(train=list(trained), labels=suite.labels, prompt=suite.prompt)


def _labelled(example: Example | None) -> RowQuestion | None:
    if example is None:
        return None
    assert example.source is not None
    return RowQuestion(example.source.text, example.question, gold=example.answer)


def _summarized(example: Example | None) -> RowQuestion:
    assert example is not None
    assert example.source is not None
    references = tuple(check_unicode(text, "summary", example.where) for text in example.references)
    return RowQuestion(example.source.text, example.question, references=references)


def _asked(example: Example | None) -> RowQuestion:
    assert example is not None
    asked = _plain(example)
    last = next(message.content for message in reversed(asked) if message.role == "user")
    _check_not_empty(last, "the question", example.where)
    return RowQuestion(last, asked, references=(example.answer,) if example.answer else ())


def _scored(example: Example | None) -> RowQuestion:
    assert example is not None
    _check_not_empty(example.answer, "the text that is scored", example.where)
    return RowQuestion(example.answer, _plain(example))


def _plain(example: Example) -> tuple[Message, ...]:
    """What comes before the answer, without an assistant's reasoning. Raises DataError where tools are called."""
    if example.tools or any(message.tool_calls or message.role == "tool" for message in example.messages):
        raise DataError(
            "this conversation has tools, which suites do not pass to models",
            where=example.where,
            remedy="remove the row, or write calls and results into the contents",
        )
    return tuple(Message(message.role, message.content) for message in example.question)


def _read_prompt(row: Row, source: SuiteSource) -> RowQuestion:
    prompt = to_text(_value(row, source, "prompt"), "prompt", row.where)
    _check_not_empty(prompt, "prompt", row.where)
    system = _value(row, source, "system", optional=True)
    before = (Message("system", to_text(system, "system", row.where)),) if system else ()
    return RowQuestion(prompt, (*before, Message("user", prompt)), references=_references(row, source))


def _references(row: Row, source: SuiteSource) -> tuple[str, ...]:
    found = _value(row, source, "reference", optional=True)
    texts = found if isinstance(found, list) else [] if found is None or found == "" else [found]
    for text in texts:
        if not isinstance(text, str):
            raise DataError(
                f"reference must hold a text or a list of texts, not {shown(found)}",
                where=row.where,
                remedy="write numbers in quotes, and leave the column out where there is none",
            )
        check_unicode(text, "reference", row.where)
    return tuple(texts)


def _read_text(row: Row, source: SuiteSource) -> RowQuestion:
    text = to_text(_value(row, source, "text"), "text", row.where)
    _check_not_empty(text, "text", row.where)
    return RowQuestion(text, ())


def _value(row: Row, source: SuiteSource, column: str, *, optional: bool = False) -> Any:
    """The value of one of the format's columns; None for an optional one that is not there and not mapped."""
    name = source.columns.get(column, column)
    try:
        return find_column(row.values, name)
    except KeyError:
        if optional and column not in source.columns:
            return None
        raise missing_column(row, name, f"map it in the source's columns, such as {{{column}: its name}}") from None


def missing_column(row: Row, name: str, remedy: str) -> DataError:
    """The error that says which columns there are instead."""
    there = list(column_names(row.values)) if "." in name else list(row.values)
    return DataError(
        f"there is no column {name}{nearest(name, there)}; there are {', '.join(there) or 'none'}",
        where=row.where,
        remedy=remedy,
    )


def _check_columns(source: SuiteSource) -> None:
    known = _OWN_COLUMNS[source.format]
    for column in source.columns:
        if column not in known:
            raise RecipeError(
                f"columns maps {column}{nearest(column, known)}, but format {source.format} has {', '.join(known)}",
                where=source.source,
            )
    if source.labels:
        raise RecipeError(f"labels are mapped, but format {source.format} has none", where=source.source)


def _check_not_empty(text: str, what: str, where: str) -> None:
    if not text.strip():
        raise DataError(f"{what} is empty", where=where, remedy="remove the row, or give it a text")
