"""Rows -> conversations, with one function per data format."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from edgetune.data.columns import column_names, find_column, locate_column, shown, to_text
from edgetune.data.conversation import (
    MESSAGES,
    SHAREGPT,
    Turns,
    Unread,
    check_conversation,
    check_text_only,
    read_functions,
    read_history,
    read_tools,
    read_turns,
    with_system,
)
from edgetune.data.example import Example, Message, SourceText
from edgetune.data.labels import check_label_map, find_label
from edgetune.data.prompt import TEXT, asks_for
from edgetune.data.read import Row
from edgetune.errors import DataError, RecipeError
from edgetune.plugins import DATA_FORMATS_GROUP, Registry
from edgetune.recipe.data import FORMATS_OF_TASK, Data, DataSource
from edgetune.recipe.yaml_input import nearest

_AROUND = ("system", "tools", "functions")
"""Optional columns of every conversation format."""


@dataclass(frozen=True)
class Record:
    """A row's values by the format's own column names, and the `others` of the prompt."""

    where: str
    values: dict[str, Any]
    others: dict[str, str] = field(default_factory=dict)
    unread: Unread = field(default_factory=Counter)
    may_be_open: bool = False
    """Turns may end before the answer."""

    def text(self, column: str) -> str:
        """The text of a column; a list of texts is joined by line breaks. Raises DataError for anything else."""
        return to_text(self.values[column], column, self.where)


@dataclass(frozen=True)
class Format:
    """The columns of a format, and the function that builds an example (None if the label map leaves the row out).

    `tasks` are the tasks of its examples: chat, classify or summarize.
    """

    columns: tuple[str, ...]
    build: Callable[[Record, DataSource, Data], Example | None]
    optional: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("chat",)

    @property
    def known(self) -> tuple[str, ...]:
        """All columns of the format."""
        return (*self.columns, *self.optional)


def to_example(
    row: Row, source: DataSource, data: Data, unread: Unread | None = None, *, may_be_open: bool = False
) -> Example | None:
    """The conversation of a row by `source`'s format, column map and label map; None if its label maps to null.

    Values that are not read are counted in `unread`. With `may_be_open`, formats of turns may leave out the last
    answer. Raises DataError naming the row: a missing column (lists the existing ones), a value that is not text, an
    unknown role, a conversation that does not end with the assistant, an unknown label (lists the known ones), and
    content that cannot be read, such as pictures.
    """
    form = FORMATS[source.format]
    values: dict[str, Any] = {}
    read: set[str] = set()
    for column in form.known:
        name = column_of(column, row.values, source)
        try:
            values[column] = find_column(row.values, name)
        except KeyError:
            if column in form.columns or column in source.columns:
                raise _missing(column, row, source) from None
        else:
            read.add(name)
    if TEXT not in form.columns:
        check_text_only(row.values, row.where)
    others = {column: _other(column, row, source) for column in source.columns if column not in form.known}
    record = Record(row.where, values, others, Counter() if unread is None else unread, may_be_open)
    example = form.build(record, source, data)
    if unread is not None:
        read.update(column_of(column, row.values, source) for column in others)
        heads = {name.partition(".")[0] for name in read}
        rest = row.values.keys() - read - heads
        unread.update(column for column in rest if row.values[column] not in (None, "", [], {}))
    return example


def column_of(column: str, values: dict[str, Any], source: DataSource) -> str:
    """The file's name of one of the format's columns: by the source's map, or else in any case."""
    if column in source.columns:
        return locate_column(values, source.columns[column])
    return locate_column(values, column, ignore_case=True)


def check_maps(source: DataSource, data: Data) -> None:
    """Raise RecipeError for an invalid column map or label map.

    Errors are a mapped column that neither the format nor data.prompt has, a column of the prompt that only other
    sources have, and a label that data.labels does not have.
    """
    known = FORMATS[source.format].known
    for column in source.columns:
        if column not in known and not asks_for(data.prompt, column):
            raise RecipeError(
                f"columns maps {column}{nearest(column, known)}, but format {source.format} has {', '.join(known)}",
                where=source.source,
                remedy=None if data.prompt is None else f"put {{{column}}} into data.prompt to use it there",
            )
    for other in (*data.train, *data.eval):
        for column in other.columns:
            given = column in source.columns or column in FORMATS[other.format].known
            if not given and asks_for(data.prompt, column):
                raise RecipeError(
                    f"data.prompt contains {{{column}}}, but this source's columns do not map it",
                    where=source.source,
                    remedy=f"map it, such as columns: {{{column}: its name in the file}}",
                )
    check_label_map(source, data)


def _from_messages(record: Record, source: DataSource, data: Data) -> Example:
    return _from_turns(record, MESSAGES, record.values[MESSAGES.column])


def _from_sharegpt(record: Record, source: DataSource, data: Data) -> Example:
    return _from_turns(record, SHAREGPT, record.values[SHAREGPT.column])


def _from_turns(record: Record, form: Turns, turns: Any) -> Example:
    messages = read_turns(turns, form, record.where, record.unread)
    return _conversation(record, messages, answered=not record.may_be_open or messages[-1].role == "assistant")


def _from_alpaca(record: Record, source: DataSource, data: Data) -> Example:
    instruction, context = record.text("instruction"), record.values.get("input")
    if context:
        instruction += "\n\n" + record.text("input")
    history = read_history(record.values.get("history"), record.where)
    return _conversation(record, (*history, *_exchange(instruction, record.text("output"))))


def _from_prompt_completion(record: Record, source: DataSource, data: Data) -> Example:
    """A prompt and a completion are texts or, as in TRL, turns; the completion's turns are learned."""
    if not _holds_turns(record.values["prompt"]):
        return _conversation(record, _exchange(record.text("prompt"), record.text("completion")))
    read, learned = (
        read_turns(record.values[column], replace(MESSAGES, column=column), record.where, record.unread)
        for column in ("prompt", "completion")
    )
    return _conversation(record, (*(replace(message, supervised=False) for message in read), *learned))


def _holds_turns(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(turn, dict) for turn in value)


def _conversation(record: Record, messages: tuple[Message, ...], *, answered: bool = True) -> Example:
    """The conversation with the row's system text and tools."""
    values, where = record.values, record.where
    system = record.text("system") if values.get("system") else ""
    messages = with_system(messages, system, where)
    check_conversation(messages, where, answered=answered)
    tools = read_tools(values.get("tools"), where) or read_functions(values.get("functions"), where)
    return Example(messages, where, tools=tools, answered=answered)


def _exchange(user: str, assistant: str) -> tuple[Message, ...]:
    return Message("user", user), Message("assistant", assistant)


def _from_text_label(record: Record, source: DataSource, data: Data) -> Example | None:
    label = find_label(record.values["label"], source, data, record.where)
    if label is None:
        return None
    asked = _asked(record, data)
    return Example((Message("user", asked.filled), Message("assistant", label)), record.where, label, asked)


def _from_text_summary(record: Record, source: DataSource, data: Data) -> Example:
    found = record.values["summary"]
    references = tuple(found) if isinstance(found, list) else (found,)
    if not references or not all(isinstance(reference, str) for reference in references):
        raise DataError(f"summary must be a text or a list of texts, not {shown(found)}", where=record.where)
    asked = _asked(record, data)
    messages = (Message("user", asked.filled), Message("assistant", references[0]))
    return Example(messages, record.where, source=asked, references=references)


def _adopt(name: str, given: object) -> Format:
    """A plugin's Format; or a function whose parameters are columns, and which returns the messages of a conversation.

    Raises TypeError or ValueError for anything else.
    """
    if isinstance(given, Format):
        return given
    if not callable(given):
        raise TypeError(f"{given!r} is neither a Format nor a function of a row's columns")
    parameters = inspect.signature(given).parameters.values()
    required = tuple(one.name for one in parameters if one.default is one.empty)
    optional = tuple(one.name for one in parameters if one.default is not one.empty)

    def build(record: Record, source: DataSource, data: Data) -> Example:
        columns = {column: record.values[column] for column in (*required, *optional) if column in record.values}
        try:
            turns = given(**columns)
        except Exception as problem:
            what = f"format {name} failed on this row ({type(problem).__name__}: {problem})"
            raise DataError(what, where=record.where) from problem
        return _from_turns(record, MESSAGES, turns)

    return Format(required, build, optional=(*optional, *(column for column in _AROUND if column not in optional)))


_OWN = {
    "messages": Format(("messages",), _from_messages, optional=_AROUND),
    "sharegpt": Format(("conversations",), _from_sharegpt, optional=_AROUND),
    "alpaca": Format(("instruction", "output"), _from_alpaca, optional=("input", "history", *_AROUND)),
    "prompt-completion": Format(("prompt", "completion"), _from_prompt_completion, optional=_AROUND),
    "text-label": Format((TEXT, "label"), _from_text_label),
    "text-summary": Format((TEXT, "summary"), _from_text_summary),
}

FORMATS = Registry[Format](
    DATA_FORMATS_GROUP,
    {
        name: replace(form, tasks=tuple(task for task, names in FORMATS_OF_TASK.items() if name in names))
        for name, form in _OWN.items()
    },
    _adopt,
)
"""By name: edgetune's own, and those of plugins."""


def _asked(record: Record, data: Data) -> SourceText:
    """The text with its prompt, if there is one."""
    prompt = {} if data.prompt is None else {"prompt": data.prompt}
    return SourceText(record.text(TEXT), **prompt, others=tuple(record.others.items()))


def _other(column: str, row: Row, source: DataSource) -> str:
    """A column that only the prompt uses; numbers become text."""
    try:
        value = find_column(row.values, column_of(column, row.values, source))
    except KeyError:
        raise _missing(column, row, source) from None
    return to_text(str(value) if isinstance(value, int | float) else value, column, row.where)


def _missing(column: str, row: Row, source: DataSource) -> DataError:
    name = source.columns.get(column, column)
    there = list(column_names(row.values)) if "." in name else list(row.values)
    return DataError(
        f"there is no column {name}{nearest(name, there)}; there are {', '.join(there) or 'none'}",
        where=row.where,
        remedy=f"map it in the source's columns, such as {{{column}: its name in the file}}",
    )
