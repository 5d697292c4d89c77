"""Rows -> conversations, one small function per data format."""

from __future__ import annotations

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
from edgetune.recipe.data import Data, DataSource
from edgetune.recipe.yaml_input import nearest

_AROUND = ("system", "tools", "functions")
"""Columns that any format of conversations may have."""


@dataclass(frozen=True)
class Record:
    """A row as its format sees it: values by the format's own column names, and the `others` that a prompt asks for."""

    where: str
    values: dict[str, Any]
    others: dict[str, str] = field(default_factory=dict)
    unread: Unread = field(default_factory=Counter)
    may_be_open: bool = False
    """Turns may end before the answer."""

    def text(self, column: str) -> str:
        """The text in a column, the texts of a list below each other. Raises DataError when it holds anything else."""
        return to_text(self.values[column], column, self.where)


@dataclass(frozen=True)
class Format:
    """The columns that a format reads, and what it makes of them; None where the label map leaves the row out."""

    columns: tuple[str, ...]
    build: Callable[[Record, DataSource, Data], Example | None]
    optional: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """Every column that it can read."""
        return (*self.columns, *self.optional)


def to_example(
    row: Row, source: DataSource, data: Data, unread: Unread | None = None, *, may_be_open: bool = False
) -> Example | None:
    """The conversation that a row holds, read by `source`'s format, column map and label map.

    None where the label map says null for its label. What the row holds beside what is read is counted in `unread`.
    With `may_be_open`, formats of turns may leave out the last answer.

    Raises DataError naming the row: a missing column (lists those there are), a value that is no text, a turn of an
    unknown role, a conversation that does not end with the assistant, an unknown label (lists the known ones), and what
    cannot be read and would change the meaning, such as pictures.
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
    """What the file calls one of the format's columns: as the source maps it; without a map, in any case."""
    if column in source.columns:
        return locate_column(values, source.columns[column])
    return locate_column(values, column, ignore_case=True)


def check_maps(source: DataSource, data: Data) -> None:
    """Raise RecipeError when a source maps what nobody reads, or does not give what others give to the prompt.

    That is a column that neither its format nor data.prompt has, a column that the prompt takes from another source,
    and a label that data has not.
    """
    known = FORMATS[source.format].known
    for column in source.columns:
        if column not in known and not asks_for(data.prompt, column):
            raise RecipeError(
                f"columns maps {column}{nearest(column, known)}, but format {source.format} has {', '.join(known)}",
                where=source.source,
                remedy=None if data.prompt is None else f"put {{{column}}} into data.prompt if it is meant for that",
            )
    for other in (*data.train, *data.eval):
        for column in other.columns:
            given = column in source.columns or column in FORMATS[other.format].known
            if not given and asks_for(data.prompt, column):
                raise RecipeError(
                    f"data.prompt asks for {{{column}}}, and this source's columns do not say where that is",
                    where=source.source,
                    remedy=f"map it, such as columns: {{{column}: its name in the file}}",
                )
    check_label_map(source, data)


def _from_messages(record: Record, source: DataSource, data: Data) -> Example:
    return _from_turns(record, MESSAGES)


def _from_sharegpt(record: Record, source: DataSource, data: Data) -> Example:
    return _from_turns(record, SHAREGPT)


def _from_turns(record: Record, form: Turns) -> Example:
    messages = read_turns(record.values[form.column], form, record.where, record.unread)
    return _conversation(record, messages, answered=not record.may_be_open or messages[-1].role == "assistant")


def _from_alpaca(record: Record, source: DataSource, data: Data) -> Example:
    instruction, context = record.text("instruction"), record.values.get("input")
    if context:
        instruction += "\n\n" + record.text("input")
    history = read_history(record.values.get("history"), record.where)
    return _conversation(record, (*history, *_exchange(instruction, record.text("output"))))


def _from_prompt_completion(record: Record, source: DataSource, data: Data) -> Example:
    """A prompt and a completion are texts or, as TRL has them too, turns, of which the completion's are learned."""
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
    """The conversation with what the row's other columns say about it."""
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
        raise DataError(f"summary must hold a text, or a list of texts, not {shown(found)}", where=record.where)
    asked = _asked(record, data)
    messages = (Message("user", asked.filled), Message("assistant", references[0]))
    return Example(messages, record.where, source=asked, references=references)


FORMATS: dict[str, Format] = {
    "messages": Format(("messages",), _from_messages, optional=_AROUND),
    "sharegpt": Format(("conversations",), _from_sharegpt, optional=_AROUND),
    "alpaca": Format(("instruction", "output"), _from_alpaca, optional=("input", "history", *_AROUND)),
    "prompt-completion": Format(("prompt", "completion"), _from_prompt_completion, optional=_AROUND),
    "text-label": Format((TEXT, "label"), _from_text_label),
    "text-summary": Format((TEXT, "summary"), _from_text_summary),
}


def _asked(record: Record, data: Data) -> SourceText:
    """The text and its prompt; without one the text stands alone."""
    prompt = {} if data.prompt is None else {"prompt": data.prompt}
    return SourceText(record.text(TEXT), **prompt, others=tuple(record.others.items()))


def _other(column: str, row: Row, source: DataSource) -> str:
    """A column that only the prompt asks for; numbers are text there."""
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
