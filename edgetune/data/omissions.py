"""Finds what a chat template leaves out of a conversation: an error if the answer loses its meaning, else a warning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgetune.data.conversation import REASONING_KEYS
from edgetune.data.example import Example, Message
from edgetune.data.template import ChatTemplate, Segment
from edgetune.errors import DataError

ESCAPED = (
    "puts a backslash before each quote in the arguments of tool calls, because they are given as text; give objects"
)
_OTHER = "edgetune"
"""Text that replaces a part to find out whether the template writes it."""

_TOOLS_REMEDY = (
    "use a base whose template supports tools, set data.template to a Jinja file that does, or write calls and results "
    "into the contents"
)


def find_omissions(example: Example, template: ChatTemplate, readings: Sequence[Sequence[Segment]]) -> list[str]:
    """Omissions with which the answers can still be learned, such as `leaves out the tools`.

    A part that occurs in one of the readings counts as written; for the others, a second rendering with a replacement
    decides. Raises DataError if a tool call, an answer, or a turn other than a system message is left out.
    """
    rendered = ["".join(segment.text for segment in reading) for reading in readings]
    answers = [segment.text for reading in readings for segment in reading if segment.supervised]
    found: list[str] = []
    if example.tools and not _reads_tools(example, template):
        found.append("leaves out the tools")
    for turn, message in enumerate(example.messages):
        if message.tool_calls:
            if not all(_seen(_name(call), answers) for call in message.tool_calls):
                _check_calls(example, turn, template)
            if _escapes_arguments(message, answers):
                found.append(ESCAPED)
        for key, value in message.more:
            if (
                key in REASONING_KEYS
                and not _seen(value, rendered)
                and _ignores(example, turn, template, {key: _OTHER})
            ):
                found.append(f"leaves out {key} of the {message.role}")
        if not all(_seen(part, rendered) for part in message.parts or (message.content,)) and _ignores(
            example, turn, template, {}
        ):
            if message.role == "system":
                found.append("leaves out the system message")
            elif message.tool_calls:
                found.append("leaves out the text beside a tool call")
            else:
                raise _left_out(f"turn {turn + 1} ({message.role})", example)
    return list(dict.fromkeys(found))


def explain_refusal(example: Example, template: ChatTemplate) -> None:
    """Raise DataError if a template has refused a conversation because of its tool calls.

    Some templates do not support calls and fail on an answer without text; DeepSeek's read the arguments as text.
    """
    calling = [turn for turn, message in enumerate(example.messages) if message.tool_calls]
    if not calling:
        return
    as_text = replace(example, messages=tuple(map(_with_text_arguments, example.messages)))
    if not _renders(example, template) and _renders(as_text, template):
        raise DataError(
            "the chat template reads the arguments of tool calls only as text",
            where=example.where,
            remedy='write them as text: "arguments": "{\\"city\\": ...}"',
        )
    written = replace(example, messages=tuple(replace(message, content_is="text") for message in example.messages))
    for turn in calling:
        _check_calls(written, turn, template)


def _check_calls(example: Example, turn: int, template: ChatTemplate) -> None:
    calls = example.messages[turn].tool_calls
    others = [{"type": "function", "function": {"name": _OTHER, "arguments": "{}"}}]
    if not _ignores(example, turn, template, {"tool_calls": others}):
        return
    empty = replace(example.messages[turn], content="", content_is="null")
    nulled = replace(example, messages=(*example.messages[:turn], empty, *example.messages[turn + 1 :]))
    remedy = _TOOLS_REMEDY
    if _renders(nulled, template) and not _ignores(nulled, turn, template, {"tool_calls": others}):
        remedy = "it reads calls only if the content is null; set it to null"
    raise _left_out(f"the call of {', '.join(map(_name, calls))} in turn {turn + 1}", example, remedy)


def _with_text_arguments(message: Message) -> Message:
    calls = []
    for call in message.tool_calls:
        function = call.get("function", call)
        if not isinstance(function.get("arguments"), str):
            function = {**function, "arguments": json.dumps(function.get("arguments"), ensure_ascii=False)}
        calls.append({**call, "function": function} if "function" in call else function)
    more = {**dict(message.more), "tool_calls": calls} if calls else dict(message.more)
    return replace(message, more=tuple(more.items()))


def _renders(example: Example, template: ChatTemplate) -> bool:
    try:
        template.render(example.messages, tools=example.tools)
    except DataError:
        return False
    return True


def _name(call: dict[str, Any]) -> str:
    return str(call.get("function", call)["name"])


def _left_out(what: str, example: Example, remedy: str = _TOOLS_REMEDY) -> DataError:
    return DataError(
        f"the chat template leaves out {what}, so the model would learn an answer without it",
        where=example.where,
        remedy=remedy,
    )


def _ignores(example: Example, turn: int, template: ChatTemplate, more: dict[str, Any]) -> bool:
    """True if the rendering is the same with `more` in a turn or, if `more` is empty, with another content.

    An assistant's turn is rendered as the last one, because templates then write all of it.
    """
    message, end = example.messages[turn], len(example.messages)
    if message.role == "assistant":
        end = turn + 1
    if more:
        other = replace(message, more=tuple({**dict(message.more), **more}.items()))
    else:
        other = replace(message, content=_OTHER, content_is="text", parts=(_OTHER,) if message.parts else ())
    messages = example.messages[:end]
    try:
        as_it_is = template.render(messages, tools=example.tools)
        return template.render([*messages[:turn], other, *messages[turn + 1 :]], tools=example.tools) == as_it_is
    except DataError:
        return False


def _reads_tools(example: Example, template: ChatTemplate) -> bool:
    prompt = _before_the_answer(example.messages)
    try:
        return template.render(prompt, tools=example.tools) != template.render(prompt)
    except DataError:
        return True


def _before_the_answer(messages: Sequence[Message]) -> Sequence[Message]:
    first = next(number for number, message in enumerate(messages) if message.role == "assistant")
    return messages[:first]


def _seen(text: str, rendered: Sequence[str]) -> bool:
    return any(text.strip() in whole for whole in rendered)


def _escapes_arguments(message: Message, rendered: Sequence[str]) -> bool:
    for call in message.tool_calls:
        given = call.get("function", call).get("arguments")
        if isinstance(given, str) and '"' in given and not _seen(given, rendered):
            return _seen(json.dumps(given, ensure_ascii=False), rendered)
    return False
