"""What every data format becomes: a conversation that remembers where it was read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A conversation to learn from or to be tested on.

    The last message is the assistant's, and every assistant turn is supervised. `where` names the row that it was read
    from (`file.jsonl:12`). `label` is the right class where the task is to classify.
    """

    messages: tuple[Message, ...]
    where: str
    label: str | None = None
