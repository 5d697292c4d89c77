"""Rows -> conversations, one small function per data format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.data.example import Example, Message
from edgetune.data.read import Row
from edgetune.errors import DataError, RecipeError
from edgetune.recipe.data import Data, DataSource
from edgetune.recipe.yaml_input import nearest

_ROLES = {role: role for role in ("system", "user", "assistant", "tool")}
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", **_ROLES}


@dataclass(frozen=True)
class Record:
    """A row as its format sees it: values by the format's own column names."""

    where: str
    values: dict[str, Any]

    def text(self, column: str) -> str:
        """The text in a column. Raises DataError when it holds anything else."""
        return _text(self.values[column], column, self.where)


@dataclass(frozen=True)
class Format:
    """The columns that a format reads, and what it makes of them."""

    columns: tuple[str, ...]
    build: Callable[[Record, DataSource, Data], Example]
    optional: tuple[str, ...] = ()


def to_example(row: Row, source: DataSource, data: Data) -> Example:
    """The conversation that a row holds, read by `source`'s format, column map and label map.

    Raises DataError naming the row: a missing column (lists those there are), a value that is no text, a turn of an
    unknown role, a conversation that does not end with the assistant, an unknown label (lists the known ones).
    """
    form = FORMATS[source.format]
    values: dict[str, Any] = {}
    for column in (*form.columns, *form.optional):
        name = source.columns.get(column, column)
        if name in row.values:
            values[column] = row.values[name]
        elif column in form.columns or column in source.columns:
            raise DataError(
                f"there is no column {name}{nearest(name, row.values)}; there are {', '.join(row.values) or 'none'}",
                where=row.where,
                remedy=f"map it in the source's columns, such as {{{column}: its name in the file}}",
            )
    return form.build(Record(row.where, values), source, data)


def check_maps(source: DataSource, data: Data) -> None:
    """Raise RecipeError when a source maps a column that its format does not have, or to a label that data has not."""
    form = FORMATS[source.format]
    known = (*form.columns, *form.optional)
    for column in source.columns:
        if column not in known:
            raise RecipeError(
                f"columns maps {column}{nearest(column, known)}, but format {source.format} has {', '.join(known)}",
                where=source.source,
            )
    for value, label in source.labels.items():
        if label is not None and label not in data.labels:
            raise RecipeError(
                f"labels maps {value} to {label}{nearest(label, data.labels)}, but data.labels has "
                f"{', '.join(data.labels) or 'none'}",
                where=source.source,
            )


def fill_prompt(prompt: str, text: str) -> str:
    """The prompt with `text` in the place of {text}. Other braces, in either of them, are plain characters."""
    return prompt.replace("{text}", text)


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


def _from_text_label(record: Record, source: DataSource, data: Data) -> Example:
    if data.prompt is None:
        raise RecipeError("format text-label needs a prompt with {text}", where=source.source, remedy="set data.prompt")
    label = _label(record, source, data)
    user, assistant = fill_prompt(data.prompt, record.text("text")), label
    return Example((Message("user", user), Message("assistant", assistant)), record.where, label)


FORMATS: dict[str, Format] = {
    "messages": Format(("messages",), _from_messages),
    "sharegpt": Format(("conversations",), _from_sharegpt),
    "alpaca": Format(("instruction", "output"), _from_alpaca, optional=("input",)),
    "prompt-completion": Format(("prompt", "completion"), _from_prompt_completion),
    "text-label": Format(("text", "label"), _from_text_label),
}


def _turns(record: Record, column: str, role_key: str, text_key: str) -> list[tuple[str, str]]:
    """The (role, text) pairs of a list of turns."""
    turns = record.values[column]
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise DataError(f"column {column} must hold a list of turns, not {_shown(turns)}", where=record.where)
    pairs: list[tuple[str, str]] = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or role_key not in turn or text_key not in turn:
            raise DataError(
                f"turn {number} of {column} must have {role_key} and {text_key}, not {_shown(turn)}",
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


def _label(record: Record, source: DataSource, data: Data) -> str:
    """The label of a row: through the source's label map where there is one, as it stands otherwise."""
    value = str(record.values["label"])
    labels = source.labels or {label: label for label in data.labels}
    if value not in labels:
        raise DataError(
            f"unknown label {value!r}{nearest(value, labels)}; known are {', '.join(labels)}",
            where=record.where,
            remedy=None if source.labels else "map the file's values in the source's labels, such as {\"0\": negative}",
        )
    return labels[value] or ""


def _text(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{column} must hold text, not {_shown(value)}", where=where)
    return value


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
