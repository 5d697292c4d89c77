"""Counts tools, calls, reasoning and other parts of conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from edgetune.data.conversation import REASONING_KEYS
from edgetune.data.example import Example, Message


def count_parts(rows: Sequence[Example]) -> dict[str, int]:
    """Part -> the number of rows or turns that have it, the most frequent first."""
    found: Counter[str] = Counter()
    for row in rows:
        if row.tools:
            found["conversations with tools"] += 1
        for message in row.messages:
            found.update(_parts(message))
    return dict(found.most_common())


def _parts(message: Message) -> Iterator[str]:
    if message.role == "system":
        yield "system messages"
    if message.role == "tool":
        yield "results of tools"
    if message.tool_calls:
        yield "turns that call tools"
    if any(key in REASONING_KEYS for key, _ in message.more):
        yield "turns with reasoning"
    if message.role == "assistant" and not message.supervised:
        yield "answers of weight 0, which are not learned"
