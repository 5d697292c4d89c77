"""Rows -> conversations, one small function per data format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgetune.data.columns import check_unicode, column_names, find_column, shown, to_text
from edgetune.data.example import Example, Message, Source
from edgetune.data.prompt import TEXT, asks_for
from edgetune.data.read import Row
from edgetune.errors import DataError, RecipeError
from edgetune.recipe.data import Data, DataSource
from edgetune.recipe.yaml_input import nearest

_ROLES = {role: role for role in ("system", "user", "assistant", "tool")}
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", **_ROLES}


@dataclass(frozen=True)
class Record:
    """A row as its format sees it: values by the format's own column names, and the `others` that a prompt asks for."""

    where: str
    values: dict[str, Any]
    others: dict[str, str] = field(default_factory=dict)

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


def to_example(row: Row, source: DataSource, data: Data) -> Example | None:
    """The conversation that a row holds, read by `source`'s format, column map and label map.

    None where the label map says null for its label. Raises DataError naming the row: a missing column (lists those
    there are), a value that is no text, a turn of an unknown role, a conversation that does not end with the assistant,
    an unknown label (lists the known ones).
    """
    form = FORMATS[source.format]
    values: dict[str, Any] = {}
    for column in form.known:
        try:
            values[column] = find_column(row.values, source.columns.get(column, column))
        except KeyError:
            if column in form.columns or column in source.columns:
                raise _missing(column, row, source) from None
    others = {column: _other(column, row, source) for column in source.columns if column not in form.known}
    return form.build(Record(row.where, values, others), source, data)


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
    for value, label in source.labels.items():
        if label is not None and label not in data.labels:
            raise RecipeError(
                f"labels maps {value} to {label}{nearest(label, data.labels)}, but data.labels has "
                f"{', '.join(data.labels) or 'none'}",
                where=source.source,
            )


def _from_messages(record: Record, source: DataSource, data: Data) -> Example:
    return _conversation(_turns(record, "messages", "role", "content"), _ROLES, record.where)


def _from_sharegpt(record: Record, source: DataSource, data: Data) -> Example:
    return _conversation(_turns(record, "conversations", "from", "value"), _SHAREGPT_ROLES, record.where)


def _from_alpaca(record: Record, source: DataSource, data: Data) -> Example:
    instruction, context = record.text("instruction"), record.values.get("input")
    if context:
        instruction += "\n\n" + record.text("input")
    return _exchange(instruction, record.text("output"), record.where)


def _from_prompt_completion(record: Record, source: DataSource, data: Data) -> Example:
    return _exchange(record.text("prompt"), record.text("completion"), record.where)


def _from_text_label(record: Record, source: DataSource, data: Data) -> Example | None:
    label = _label(record, source, data)
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
    "messages": Format(("messages",), _from_messages),
    "sharegpt": Format(("conversations",), _from_sharegpt),
    "alpaca": Format(("instruction", "output"), _from_alpaca, optional=("input",)),
    "prompt-completion": Format(("prompt", "completion"), _from_prompt_completion),
    "text-label": Format((TEXT, "label"), _from_text_label),
    "text-summary": Format((TEXT, "summary"), _from_text_summary),
}


def _turns(record: Record, column: str, role_key: str, text_key: str) -> list[tuple[str, str]]:
    """The (role, text) pairs of a list of turns."""
    turns = record.values[column]
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise DataError(f"column {column} must hold a list of turns, not {shown(turns)}", where=record.where)
    pairs: list[tuple[str, str]] = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or role_key not in turn or text_key not in turn:
            raise DataError(
                f"turn {number} of {column} must have {role_key} and {text_key}, not {shown(turn)}",
                where=record.where,
                remedy="format messages reads role and content, format sharegpt from and value",
            )
        role = _text(turn[role_key], f"{column}, turn {number}, {role_key}", record.where)
        pairs.append((role, _text(turn[text_key], f"{column}, turn {number}, {text_key}", record.where)))
    return pairs


def _conversation(turns: Sequence[tuple[str, str]], known_roles: dict[str, str], where: str) -> Example:
    """The example of these (role, text) pairs, roles translated to those of chat templates."""
    for number, (role, _) in enumerate(turns, start=1):
        if role not in known_roles:
            raise DataError(
                f"turn {number} has the unknown role {role!r}; known are {', '.join(known_roles)}", where=where
            )
    messages = tuple(Message(known_roles[role], text) for role, text in turns)
    roles = [message.role for message in messages]
    if roles[-1] != "assistant":
        raise DataError(
            f"the conversation ends with a turn of the {roles[-1]}; it must end with the assistant's answer",
            where=where,
            remedy="remove what follows the last answer",
        )
    if "user" not in roles[: roles.index("assistant")]:
        raise DataError(
            "the assistant speaks before the user has said anything",
            where=where,
            remedy="remove that turn, or make it the system message",
        )
    return Example(messages, where)


def _exchange(user: str, assistant: str, where: str) -> Example:
    return Example((Message("user", user), Message("assistant", assistant)), where)


def _asked(record: Record, data: Data) -> Source:
    """The text and its prompt; without one the text stands alone."""
    prompt = {} if data.prompt is None else {"prompt": data.prompt}
    return Source(record.text(TEXT), **prompt, others=tuple(record.others.items()))


def _label(record: Record, source: DataSource, data: Data) -> str | None:
    """The label of a row: through the source's label map where there is one, as it stands otherwise."""
    spellings = _spellings(record.values["label"])
    labels = source.labels or {label: label for label in data.labels}
    for spelling in spellings:
        if spelling in labels:
            return labels[spelling]
    raise DataError(
        f"unknown label {spellings[0]!r}{nearest(spellings[0], labels)}; known are {', '.join(labels)}",
        where=record.where,
        remedy=None if source.labels else "map the file's values in the source's labels, such as {\"0\": negative}",
    )


def _spellings(value: Any) -> tuple[str, ...]:
    """How a label map may write a value: 4.0 also as 4, True as true, and None as null."""
    if value is None or isinstance(value, bool):
        return str(value), "null" if value is None else str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(value), str(int(value))
    return (str(value),)


def _other(column: str, row: Row, source: DataSource) -> str:
    """A column that only the prompt asks for; numbers are text there."""
    try:
        value = find_column(row.values, source.columns[column])
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


def _text(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{column} must hold text, not {shown(value)}", where=where)
    return check_unicode(value, column, where)
