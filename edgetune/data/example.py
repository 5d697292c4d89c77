"""What every data format becomes: a conversation that remembers where it was read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgetune.data.prompt import TEXT, fill_prompt


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Source:
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

    The last message is the assistant's, and every assistant turn is supervised. `where` names the row that it was read
    from (`file.jsonl:12`). `label` is the right class where the task is to classify, and `references` are the right
    summaries where it is to summarize; the answer is the first of them. `source` is what the first message was made of
    where that was a prompt and a text. `weight` is what its loss counts, beside 1.0 of an ordinary example.
    """

    messages: tuple[Message, ...]
    where: str
    label: str | None = None
    source: Source | None = None
    references: tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def answer(self) -> str:
        """The last message: the label, the summary, the assistant's last turn."""
        return self.messages[-1].content

    @property
    def content(self) -> str:
        """What is asked: the text without the words around it, or everything that the user says."""
        if self.source is not None:
            return self.source.content
        return "\n".join(message.content for message in self.messages if message.role == "user")

    def with_text(self, text: str) -> Example:
        """The same example about another text, with the prompt filled anew. It must have a source."""
        assert self.source is not None
        source = replace(self.source, text=text)
        first, *rest = self.messages
        return replace(self, messages=(replace(first, content=source.filled), *rest), source=source)

    def with_answer(self, answer: str) -> Example:
        """The same example with another last message; label and references stay what they are."""
        *first, last = self.messages
        return replace(self, messages=(*first, replace(last, content=answer)))
