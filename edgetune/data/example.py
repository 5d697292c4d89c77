"""The result of every data format: a conversation with the place where it was read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from edgetune.data.prompt import TEXT, fill_prompt

ContentIs = Literal["text", "null", "absent"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    `more` are further keys that chat templates read, as (name, value): tool_calls, reasoning_content, name and so on.
    `supervised` is False for an assistant's turn that is read but not learned (weight 0). `content_is` says how an
    empty content was given, because some templates treat null unlike an empty text. `parts` are the texts of a content
    that was given in parts.
    """

    role: str
    content: str
    more: tuple[tuple[str, Any], ...] = ()
    supervised: bool = True
    content_is: ContentIs = "text"
    parts: tuple[str, ...] = ()

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The turn's tool calls as chat templates read them."""
        calls: list[dict[str, Any]] = dict(self.more).get("tool_calls", [])
        return calls

    def as_dict(self, *, in_parts: bool = False) -> dict[str, Any]:
        """The turn as a chat template reads it; a content in parts becomes one text unless `in_parts`."""
        if self.content_is == "absent":
            return {"role": self.role, **dict(self.more)}
        content: Any = self.content if self.content_is == "text" else None
        if in_parts and self.parts:
            content = [{"type": "text", "text": part} for part in self.parts]
        return {"role": self.role, "content": content, **dict(self.more)}


@dataclass(frozen=True)
class SourceText:
    """The text of a prompt, and the prompt itself, so that the text can be cut alone.

    `others` are the prompt's further columns, as (name, value).
    """

    text: str
    prompt: str = f"{{{TEXT}}}"
    others: tuple[tuple[str, str], ...] = ()

    @property
    def filled(self) -> str:
        """The prompt with the text and the other columns filled in."""
        return fill_prompt(self.prompt, self.text, dict(self.others))

    @property
    def content(self) -> str:
        """The text and the other columns, without the prompt's own words, which all examples share."""
        return "\n".join([*(value for _, value in self.others), self.text])


@dataclass(frozen=True)
class Example:
    """A conversation for training or evaluation.

    The last message is the assistant's if it is `answered`, and every assistant turn is supervised except those of
    weight 0. `where` names the row (`file.jsonl:12`). `label` is the right class for classification; `references` are
    the right summaries for summarization, and the answer is the first of them. `source` is the prompt and text of the
    first message, if it was made of those. `weight` is the weight of its loss. `tools` are the functions that the
    assistant may call, as JSON schemas.
    """

    messages: tuple[Message, ...]
    where: str
    label: str | None = None
    source: SourceText | None = None
    references: tuple[str, ...] = ()
    weight: float = 1.0
    tools: tuple[dict[str, Any], ...] = ()
    answered: bool = True

    @property
    def question(self) -> tuple[Message, ...]:
        """What comes before the answer."""
        return self.messages[:-1] if self.answered else self.messages

    @property
    def answer(self) -> str:
        """The content of the last message: the label, the summary, or the assistant's last turn. Empty if
        unanswered."""
        return self.messages[-1].content if self.answered else ""

    @property
    def content(self) -> str:
        """The text without its prompt, or all user messages."""
        if self.source is not None:
            return self.source.content
        return "\n".join(message.content for message in self.messages if message.role == "user")

    @property
    def teaches(self) -> bool:
        """True if at least one answer has weight 1."""
        return any(message.supervised for message in self.messages if message.role == "assistant")

    @property
    def is_empty(self) -> bool:
        """True if it has no question, or if its answer has neither text nor a tool call."""
        return not self.content.strip() or not (self.answer.strip() or self.messages[-1].tool_calls)

    def with_text(self, text: str) -> Example:
        """The example with another text in its prompt. It must have a source."""
        assert self.source is not None
        source = replace(self.source, text=text)
        first, *rest = self.messages
        return replace(self, messages=(replace(first, content=source.filled), *rest), source=source)

    def with_answer(self, answer: str) -> Example:
        """The example with another last message and the same label and references."""
        *first, last = self.messages
        return replace(self, messages=(*first, replace(last, content=answer, content_is="text", parts=())))
