"""What every data format becomes: a conversation that remembers where it was read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from edgetune.data.prompt import TEXT, fill_prompt

ContentIs = Literal["text", "null", "absent"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    `more` are further keys that chat templates read, as (name, value): tool_calls, reasoning_content, name and so on.
    `supervised` is False for an assistant's turn that is read and not learned (weight 0). `content_is` tells templates
    how a content was given that is empty here, because some of them treat null unlike an empty text. `parts` are the
    texts that the content is made of where they were given one by one.
    """

    role: str
    content: str
    more: tuple[tuple[str, Any], ...] = ()
    supervised: bool = True
    content_is: ContentIs = "text"
    parts: tuple[str, ...] = ()

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The calls of this turn, in the form of chat templates."""
        calls: list[dict[str, Any]] = dict(self.more).get("tool_calls", [])
        return calls

    def as_dict(self, *, in_parts: bool = False) -> dict[str, Any]:
        """The turn as a chat template reads it; a content that was given in parts is one text unless `in_parts`."""
        if self.content_is == "absent":
            return {"role": self.role, **dict(self.more)}
        content: Any = self.content if self.content_is == "text" else None
        if in_parts and self.parts:
            content = [{"type": "text", "text": part} for part in self.parts]
        return {"role": self.role, "content": content, **dict(self.more)}


@dataclass(frozen=True)
class SourceText:
    """The text that a prompt asks about, and the prompt, so that the one can be cut without the other.

    `others` are the further columns that the prompt is filled with, as (name, value).
    """

    text: str
    prompt: str = f"{{{TEXT}}}"
    others: tuple[tuple[str, str], ...] = ()

    @property
    def filled(self) -> str:
        """The prompt with everything in its place."""
        return fill_prompt(self.prompt, self.text, dict(self.others))

    @property
    def content(self) -> str:
        """What is asked about, without the prompt's own words, which all examples share."""
        return "\n".join([*(value for _, value in self.others), self.text])


@dataclass(frozen=True)
class Example:
    """A conversation to learn from or to be tested on.

    The last message is the assistant's where it is `answered`, and every assistant turn is supervised but those of
    weight 0. `where` names the row that it was read from (`file.jsonl:12`). `label` is the right class where the task
    is to classify, and `references` are the right summaries where it is to summarize; the answer is the first of them.
    `source` is what the first message was made of where that was a prompt and a text. `weight` is what its loss counts,
    beside 1.0 of an ordinary example. `tools` are the functions that the assistant may call, as JSON schemas.
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
        """The last message: the label, the summary, the assistant's last turn. Empty where there is no answer yet."""
        return self.messages[-1].content if self.answered else ""

    @property
    def content(self) -> str:
        """What is asked: the text without the words around it, or everything that the user says."""
        if self.source is not None:
            return self.source.content
        return "\n".join(message.content for message in self.messages if message.role == "user")

    @property
    def teaches(self) -> bool:
        """True when an answer is learned: not all of them have weight 0."""
        return any(message.supervised for message in self.messages if message.role == "assistant")

    @property
    def is_empty(self) -> bool:
        """True when it asks nothing, or when its answer has neither a word nor a tool call."""
        return not self.content.strip() or not (self.answer.strip() or self.messages[-1].tool_calls)

    def with_text(self, text: str) -> Example:
        """The same example about another text, with the prompt filled anew. It must have a source."""
        assert self.source is not None
        source = replace(self.source, text=text)
        first, *rest = self.messages
        return replace(self, messages=(replace(first, content=source.filled), *rest), source=source)

    def with_answer(self, answer: str) -> Example:
        """The same example with another last message; label and references stay what they are."""
        *first, last = self.messages
        return replace(self, messages=(*first, replace(last, content=answer, content_is="text", parts=())))
