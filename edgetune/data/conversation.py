"""A row's turns and tools -> messages with all values that chat templates read.

The keys of a turn are those of Transformers (https://huggingface.co/docs/transformers/chat_extras) and of OpenAI's
files for fine-tuning. Older function calls, and those of ShareGPT, become tool calls. Other keys are counted by name;
keys that would change the meaning are refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.data.columns import check_unicode, shown
from edgetune.data.example import ContentIs, Message
from edgetune.errors import DataError

Unread = Counter[str]
"""Columns, and keys of turns as `messages[].key`, with values that are not read -> how often."""

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Names in chat templates of the assistant's reasoning."""

_PASSED_ON = (*REASONING_KEYS, "name", "tool_call_id")
_NOT_READ = ("image", "images", "image_url", "audio", "audios", "video", "videos", "chat_template_kwargs")
_TEXT: ContentIs = "text"
_ROLES = {role: role for role in ("system", "user", "assistant", "tool", "developer")}


@dataclass(frozen=True)
class Turns:
    """The column of the turns, the keys of a turn's role and text, and the roles -> roles of templates.

    The text of a turn with the role `calls` is the JSON of one or several function calls.
    """

    column: str
    role: str
    text: str
    roles: dict[str, str]
    calls: str | None = None


MESSAGES = Turns("messages", "role", "content", {**_ROLES, "function": "tool"})
SHAREGPT = Turns(
    "conversations",
    "from",
    "value",
    {"human": "user", "gpt": "assistant", **_ROLES, "function": "tool", "observation": "tool"},
    calls="function_call",
)


def read_turns(turns: Any, form: Turns, where: str, unread: Unread) -> tuple[Message, ...]:
    """The messages of a list of turns. Raises DataError naming the row and the turn."""
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise DataError(f"column {form.column} must hold a list of turns, not {shown(turns)}", where=where)
    return tuple(_Turn(turn, number, form, where).read(unread) for number, turn in enumerate(turns, start=1))


def read_functions(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    """The schemas of OpenAI's older `functions`, in the form of tools. Raises DataError naming the row."""
    functions = read_tools(value, where, column="functions")
    return tuple({"type": "function", "function": function} for function in functions)


def read_tools(value: Any, where: str, *, column: str = "tools") -> tuple[dict[str, Any], ...]:
    """The schemas of a row's tools: a list, or its JSON. Raises DataError naming the row."""
    tools = _from_json(value, column, where) if isinstance(value, str) and value.strip() else value
    if not tools:
        return ()
    if isinstance(tools, list):
        tools = [_from_json(tool, column, where) if isinstance(tool, str) else tool for tool in tools]
        if all(isinstance(tool, dict) for tool in tools):
            check_unicode(json.dumps(tools, ensure_ascii=False, default=str), column, where)
            return tuple(tools)
    raise DataError(
        f"{column} must hold a list of functions as JSON schemas, not {shown(value)}",
        where=where,
        remedy='write each as {"type": "function", "function": {"name": ..., "parameters": ...}}',
    )


def read_history(value: Any, where: str) -> list[Message]:
    """The earlier exchanges of a row, [[user, assistant], ...], or their JSON."""
    pairs = _from_json(value, "history", where) if isinstance(value, str) and value.strip() else value
    if not pairs:
        return []
    whole = isinstance(pairs, list) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in pairs
    )
    if not whole:
        raise DataError(f"history must hold pairs of texts, [[asked, answered], ...], not {shown(value)}", where=where)
    return [
        Message(role, check_unicode(text, "history", where))
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def with_system(messages: tuple[Message, ...], system: str, where: str) -> tuple[Message, ...]:
    """The conversation with the row's system text. Raises DataError if it has another system message."""
    if not system:
        return messages
    if messages[0].role != "system":
        return (Message("system", system), *messages)
    if messages[0].content != system:
        raise DataError(
            "the column system and the conversation have different system messages",
            where=where,
            remedy="keep one of the two",
        )
    return messages


def check_conversation(messages: tuple[Message, ...], where: str, *, answered: bool = True) -> None:
    """Raise DataError if a conversation begins with the assistant or, if it is `answered`, does not end with it."""
    roles = [message.role for message in messages]
    if answered and roles[-1] != "assistant":
        raise DataError(
            f"the conversation ends with role {roles[-1]}; it must end with the assistant's answer",
            where=where,
            remedy="remove the turns after the last answer",
        )
    if "user" not in roles[: [*roles, "assistant"].index("assistant")]:
        raise DataError(
            "an assistant's turn comes before the first user turn",
            where=where,
            remedy="remove that turn, or make it the system message",
        )


def check_text_only(values: dict[str, Any], where: str, *, of: str = "the row") -> None:
    """Raise DataError for pictures, sounds and template settings, which edgetune does not read."""
    for key in _NOT_READ:
        if values.get(key):
            raise DataError(
                f"{of} has {key}, which edgetune does not read, so the model would learn another conversation",
                where=where,
                remedy="remove the row, or remove this key if the conversation is complete without it",
            )


class _Turn:
    def __init__(self, turn: Any, number: int, form: Turns, where: str) -> None:
        self._form, self._where, self._name = form, where, f"{form.column}, turn {number}"
        if not isinstance(turn, dict) or form.role not in turn or not self._says_something(turn):
            raise DataError(
                f"turn {number} of {form.column} must have {form.role} and {form.text}, not {shown(turn)}",
                where=where,
                remedy="format messages needs role and content, format sharegpt from and value",
            )
        self._values: dict[str, Any] = turn
        self._number = number

    def read(self, unread: Unread) -> Message:
        form, values = self._form, dict(self._values)
        check_text_only(values, self._where, of=f"turn {self._number}")
        given = self._text(values.pop(form.role), form.role)
        content, content_is, parts = "", _TEXT, tuple[str, ...]()
        if given == form.calls:
            role = "assistant"
            calls = self._calls(_from_json(values.pop(form.text), f"{self._name}, {form.text}", self._where))
        else:
            role = self._role(given)
            calls = self._given_calls(values, role)
            if isinstance(values.get(form.text), list):
                parts = self._parts(values.pop(form.text))
                content = "".join(parts)
            else:
                content, content_is = self._content(values, calls)
        more: list[tuple[str, Any]] = [("tool_calls", calls)] if calls else []
        supervised = self._weight(values.pop("weight", None))
        for key in _PASSED_ON:
            value = values.pop(key, None)
            if value is not None:
                more.append((key, self._text(value, key)))
        unread.update(f"{form.column}[].{key}" for key, value in values.items() if value not in (None, "", [], {}))
        return Message(role, content, tuple(more), supervised, content_is, parts)

    def _says_something(self, turn: dict[str, Any]) -> bool:
        return self._form.text in turn or bool(turn.get("tool_calls") or turn.get("function_call"))

    def _role(self, given: str) -> str:
        roles = self._form.roles
        if given not in roles:
            known = [*roles, self._form.calls] if self._form.calls else roles
            raise DataError(
                f"turn {self._number} has the unknown role {given!r}; known are {', '.join(known)}", where=self._where
            )
        return roles[given]

    def _content(self, values: dict[str, Any], calls: list[dict[str, Any]]) -> tuple[str, ContentIs]:
        """The text, and how an empty content was given."""
        key = self._form.text
        if calls and key not in values:
            return "", "absent"
        value = values.pop(key)
        if calls and value is None:
            return "", "null"
        return self._text(value, key), "text"

    def _parts(self, parts: list[Any]) -> tuple[str, ...]:
        return tuple(self._part(part, number) for number, part in enumerate(parts, start=1))

    def _part(self, part: Any, number: int) -> str:
        if isinstance(part, str):
            return self._text(part, self._form.text)
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if kind != "text" or "text" not in part:
            raise DataError(
                f"{self._name}, part {number} of {self._form.text} is not text but {shown(part)}",
                where=self._where,
                remedy="edgetune reads only text; remove the row, or describe the part in words",
            )
        return self._text(part["text"], self._form.text)

    def _given_calls(self, values: dict[str, Any], role: str) -> list[dict[str, Any]]:
        """The calls for the template; the older `function_call` in today's form."""
        calls, old = values.pop("tool_calls", None), values.pop("function_call", None)
        if isinstance(calls, str):
            calls = _from_json(calls, f"{self._name}, tool_calls", self._where)
        found = self._checked(calls, calls) if calls else self._calls(old) if old else []
        if found and role != "assistant":
            raise DataError(
                f"turn {self._number} calls a tool and has role {role}; only the assistant calls tools",
                where=self._where,
            )
        return found

    def _calls(self, functions: Any) -> list[dict[str, Any]]:
        """Calls made of {name, arguments}, one or a list of them."""
        given = functions if isinstance(functions, list) else [functions]
        return self._checked([{"type": "function", "function": function} for function in given], functions)

    def _checked(self, calls: Any, given: Any) -> list[dict[str, Any]]:
        for call in calls if isinstance(calls, list) else [None]:
            function = call.get("function", call) if isinstance(call, dict) else None
            name = function.get("name") if isinstance(function, dict) else None
            if not isinstance(name, str) or not name:
                raise DataError(
                    f"{self._name} has an invalid tool call: {shown(given)}",
                    where=self._where,
                    remedy='write tool_calls as [{"type": "function", "function": {"name": ..., "arguments": {...}}}]',
                )
        check_unicode(json.dumps(calls, ensure_ascii=False, default=str), f"{self._name}, tool_calls", self._where)
        found: list[dict[str, Any]] = calls
        return found

    def _weight(self, weight: Any) -> bool:
        if weight is None:
            return True
        if not isinstance(weight, int | float) or weight not in (0, 1):
            raise DataError(
                f"{self._name}: weight is {shown(weight)}; it must be 0 (not learned) or 1",
                where=self._where,
                remedy="for other weights, use the source's weight in the recipe",
            )
        return bool(weight)

    def _text(self, value: Any, key: str) -> str:
        if not isinstance(value, str):
            raise DataError(f"{self._name}, {key} must hold text, not {shown(value)}", where=self._where)
        return check_unicode(value, f"{self._name}, {key}", self._where)


def _from_json(text: Any, what: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as problem:
        raise DataError(f"{what} is not valid JSON ({problem}): {shown(text)}", where=where) from None
