"""Chat: the next answer to a list of messages, and a conversation that keeps such a list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Unpack

from edgetune import events, outputs
from edgetune.data.example import Message
from edgetune.errors import DataError
from edgetune.runtime.generation import Generation, Writing, require_max_tokens
from edgetune.runtime.sampling import Sampling
from edgetune.runtime.session import Session

ANSWER_ROOM = 4
"""A prompt leaves at least one part in this many of the context for the answer, or the oldest turns go."""


class Prompt(NamedTuple):
    """Messages as the model reads them: the text that the chat template makes of them, and its ids."""

    messages: tuple[Message, ...]
    text: str
    ids: list[int]


class Chat:
    """Answers lists of messages. The whole list is given each time, and the cache shares the common beginning.

    If a list continues the last answer, that answer keeps the ids that the model generated, and only what the chat
    template adds after it is tokenized. So the model reads the ids that training used, and none of them twice.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._last: tuple[Prompt, Generation] | None = None

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """What the model reads. Raises DataError when the chat template refuses the messages."""
        vocabulary = self.session.vocabulary
        text = vocabulary.template.render(messages, add_generation_prompt=True)
        read, ids = self._last_exchange()
        if not (read and text.startswith(read)):
            read, ids = self._in_segments(messages[:-1], text)
        return Prompt(tuple(messages), text, ids + vocabulary.tokenize(text.removeprefix(read)))

    def answer(self, prompt: Prompt, **writing: Unpack[Writing]) -> Generation:
        """The answer, piece by piece."""
        written = self.session.generate(prompt.ids, **writing)
        # A text of `stop` is cut off the answer, and not off its ids.
        self._last = None if writing.get("stop") else (prompt, written)
        return written

    def _last_exchange(self) -> tuple[str, list[int]]:
        """The last prompt with its answer, as text and as the ids that were read and written; empty without one."""
        if self._last is None or not self._last[1].is_answer:
            return "", []
        (messages, prompt, ids), answer = self._last
        vocabulary, text = self.session.vocabulary, answer.text
        with suppress(DataError):
            whole = vocabulary.template.render([*messages, Message("assistant", text)])
            behind_prompt = whole.removeprefix(prompt)
            # Some templates strip the answer. If one changes it in other ways, the conversation is tokenized again.
            shown = next((form for form in (text, text.strip()) if behind_prompt.startswith(form)), None)
            if whole.startswith(prompt) and shown is not None:
                return whole, [*ids, *answer.stats.token_ids, *vocabulary.tokenize(behind_prompt.removeprefix(shown))]
        return "", []

    def _in_segments(self, earlier: Sequence[Message], prompt: str) -> tuple[str, list[int]]:
        """The beginning of a prompt that earlier messages make up, and its ids, segment by segment as in training."""
        if any(message.role == "assistant" for message in earlier):
            vocabulary = self.session.vocabulary
            with suppress(DataError):  # a template that cannot be trained on can chat
                texts = [segment.text for segment in vocabulary.template.segments(earlier)]
                if prompt.startswith("".join(texts)):
                    return "".join(texts), [token for text in texts for token in vocabulary.tokenize(text)]
        return "", []


class Conversation:
    """Turns between a user and the model of `session`, the oldest of which go when the context is full."""

    def __init__(self, session: Session, *, system: str | None, sampling: Sampling, max_tokens: int) -> None:
        """Raises UsageError for a max_tokens below 1."""
        require_max_tokens(max_tokens)
        self._chat, self._sampling, self._max_tokens = Chat(session), sampling, max_tokens
        self._system = system
        self._turns: tuple[Message, ...] = ()
        self._asked: tuple[Message, ...] = ()
        self._answer: Generation | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The system message, if there is one, and the turns that the model still remembers."""
        if self._answer is not None and self._answer.is_answer:
            return self._with_system((*self._asked, Message("assistant", self._answer.text)))
        return self._with_system(self._turns)

    def set_system(self, text: str | None) -> None:
        """Change the system message and start a new conversation."""
        self._system = text or None
        self.reset()

    def reset(self) -> None:
        """Forget all turns; the system message stays."""
        self._turns, self._answer = (), None

    def ask(self, text: str) -> Generation:
        """Send a user's turn; the answer comes piece by piece.

        When the caller closes it early, or Ctrl-C stops the model, what was read until then stays as the answer. The
        oldest turns are dropped, with a note, when the context is full. Raises DataError when the chat template refuses
        the conversation, and reading the answer raises UsageError when this turn alone does not fit; the conversation
        is then as before.
        """
        self._turns = self.messages[len(self._with_system(())) :]
        self._answer = None
        turns, prompt = self._fit((*self._turns, Message("user", text)))
        self._asked = turns
        self._answer = self._chat.answer(prompt, sampling=self._sampling, max_tokens=self._max_tokens)
        return self._answer

    def save(self, file: Path) -> None:
        """Write the conversation as one row of format `messages`: .jsonl as a line, anything else as a JSON list.

        Raises OutputError when the file exists or cannot be written.
        """
        row = {"messages": [{"role": message.role, "content": message.content} for message in self.messages]}
        if file.suffix == ".jsonl":
            text = json.dumps(row, ensure_ascii=False)
        else:
            text = json.dumps([row], ensure_ascii=False, indent=2)
        outputs.write_text(file, text + "\n")

    def _fit(self, turns: tuple[Message, ...]) -> tuple[tuple[Message, ...], Prompt]:
        """The turns that fit into the context, and the prompt that they give."""
        capacity = self._chat.session.context.capacity
        room = capacity - min(self._max_tokens, capacity // ANSWER_ROOM)
        dropped = 0
        while len((prompt := self._chat.prompt(self._with_system(turns))).ids) > room and len(turns) > 1:
            turns = turns[2:]
            dropped += 1
        if dropped:
            what = "oldest turn" if dropped == 1 else f"{dropped} oldest turns"
            events.note(f"forgot the {what}: the context of {capacity} tokens is full")
        return turns, prompt

    def _with_system(self, turns: tuple[Message, ...]) -> tuple[Message, ...]:
        return (*([Message("system", self._system)] if self._system else []), *turns)
