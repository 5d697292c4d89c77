"""Outputs as chat programs and batch endpoints write them -> one text a row.

Read are a conversation (a list of messages, whose last one is the assistant's), a message, a completion of the OpenAI
API (`choices`, or the Responses API's `output`), one of Anthropic's or Gemini's, and the batch files of all of them,
whose `custom_id` (or `key`) names the item.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgetune.data.columns import shown
from edgetune.data.read import Row
from edgetune.data.reasoning import given_reasoning, is_reasoning
from edgetune.errors import DataError
from edgetune.judging.asking.completion import finish_of

FINISH = "finish"
"""The column of why an output ended, as `Answer.finish` has it."""

REASONING = "reasoning_content"
"""The column of what the model said to itself before the output."""

_CONVERSATIONS = ("messages", "conversation", "conversations")
_CARRIERS = ("choices", "response", "result", "candidates")
"""Columns of completions, where a row has no other output."""

_BATCH_IDS = ("custom_id", "key")
"""What names the item in batch files: `custom_id` before any other id, `key` where there is none."""
_INSIDE = ("body", "message", "messages", "choices", "candidates", "output")
"""Where a completion has its message, from the outside."""

_CONTENT = ("content", "value", "text", "parts")
_UNFINISHED = ("errored", "canceled", "expired")
_ASSISTANT = ("assistant", "gpt", "model", "bot", "chatgpt")
_ENDS = {
    **dict.fromkeys(("end_turn", "stop_sequence", "eos"), "stop"),
    **dict.fromkeys(("refusal", "safety"), "content_filter"),
}
_FILTERED = ("content_filter", "content_policy_violation", "responsible_ai_policy_violation")


@dataclass(frozen=True)
class WrittenOutput:
    """What a model wrote, why it ended where that is said, and the reasoning that stands apart from it."""

    text: str
    finish: str | None = None
    reasoning: str = ""


def unpack_chats(rows: Sequence[Row], output_columns: Sequence[str]) -> list[Row]:
    """Rows with the text of a conversation or completion in place of it; all others as they are.

    Raises DataError naming the row: a conversation that does not end with the assistant, a request that failed.
    """
    return [_unpack(row, output_columns) for row in rows]


def _unpack(row: Row, output_columns: Sequence[str]) -> Row:
    outputs = [column for column in output_columns if column in row.values]
    columns = outputs or [column for column in (*_CARRIERS, *_CONVERSATIONS) if column in row.values][:1]
    for column in columns:
        value = row.values[column] if column in outputs else _parsed(row.values[column])
        failed = value is None and row.values.get("error")
        written = _failed(row.values["error"], row.where) if failed else _read(value, row.where)
        if written is not None:
            return Row(row.where, _with_text(row.values, column, written))
    return Row(row.where, {**row.values, "id": row.values["custom_id"]}) if "custom_id" in row.values else row


def _with_text(values: Mapping[str, Any], column: str, written: WrittenOutput) -> dict[str, Any]:
    kept = {name: value for name, value in values.items() if name != column}
    if column == "choices" and "object" in values:
        kept.pop("id", None)  # the completion's own, and no item's
    custom, key = (values.get(name) for name in _BATCH_IDS)
    if custom is not None or (key is not None and kept.get("id") is None):
        kept["id"] = key if custom is None else custom
    kept["output"] = written.text
    if written.finish is not None:
        kept[FINISH] = written.finish
    if written.reasoning:
        kept[REASONING] = written.reasoning
    return kept


def _parsed(value: Any) -> Any:
    """A conversation that a table holds as JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _read(value: Any, where: str) -> WrittenOutput | None:
    """The text that a conversation, message or completion holds; None for what is none of them."""
    if isinstance(value, list):
        return _of_list(value, where)
    if not isinstance(value, dict):
        return None
    problem = _problem(value)
    if problem is not None:
        return _failed(problem, where)
    inner = next((value[name] for name in _INSIDE if isinstance(value.get(name), list | dict)), None)
    if inner is not None:
        written = _read(inner, where)
        return None if written is None else replace(written, finish=written.finish or _finish(value))
    content = next((name for name in _CONTENT if name in value), None)
    if content is None:
        return None
    return WrittenOutput(_content(value[content], value, where), _finish(value), given_reasoning(value))


def _problem(value: Mapping[str, Any]) -> Any:
    """The failure that a response reports; None for one that has not failed."""
    if value.get("error"):
        return value["error"]
    if value.get("status_code", 200) != 200:
        return value.get("body") or f"status {value['status_code']}"
    return value["type"] if value.get("type") in _UNFINISHED else None


def _of_list(values: Sequence[Any], where: str) -> WrittenOutput | None:
    """The last message of a conversation, or the first of several completions."""
    if not values or not all(isinstance(value, dict) for value in values):
        return None
    roles = [value.get("role", value.get("from")) for value in values]
    if not any(roles):
        return _read(values[0], where)
    kept = [(value, role) for value, role in zip(values, roles, strict=True) if value.get("type") != "reasoning"]
    last, role = kept[-1] if kept else (values[-1], roles[-1])
    if str(role).lower() not in _ASSISTANT:
        raise DataError(
            f"the conversation ends with {shown(role)} and holds no answer",
            where=where,
            remedy="end it with the assistant's message, which is the output that is judged",
        )
    return _read(last, where)


def _content(content: Any, message: Mapping[str, Any], where: str) -> str:
    """A message's text: as it is, or the texts among its parts. A refusal is one, a call of tools is none."""
    if isinstance(content, dict):
        content = content.get("parts", content.get("text"))
    if isinstance(content, list):
        answer = (part for part in content if not (isinstance(part, dict) and is_reasoning(part)))
        parts = [part.get("text", part.get("refusal")) if isinstance(part, dict) else part for part in answer]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is None:
        content = message.get("refusal") or ""
    if not isinstance(content, str):
        raise DataError(f"a message's content must hold text, not {shown(content)}", where=where)
    return content


def _finish(value: Mapping[str, Any]) -> str | None:
    """Why a completion ended, in the words of `Answer.finish`."""
    details = value.get("incomplete_details")
    reason = value.get("finish_reason") or value.get("finishReason") or value.get("stop_reason")
    reason = reason or (details.get("reason") if isinstance(details, dict) else None)
    if not reason:
        return None
    return _ENDS.get(str(reason).lower()) or finish_of(str(reason))


def _failed(problem: Any, where: str) -> WrittenOutput:
    """An empty output for a prompt that a content filter refused. Raises DataError for any other failure."""
    text = problem if isinstance(problem, str) else json.dumps(problem, ensure_ascii=False)
    if any(code in text for code in _FILTERED):
        return WrittenOutput("", "content_filter")
    raise DataError(
        f"the request of this row has failed ({shown(text)[1:-1]})",
        where=where,
        remedy="ask the failed requests again, and put their answers into the file",
    )
