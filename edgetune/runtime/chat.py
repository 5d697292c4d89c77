"""A conversation with a model: turns as messages, and the ids that stand for them in the cache."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from edgetune import events, outputs
from edgetune.data.example import Message
from edgetune.errors import UsageError
from edgetune.runtime.sampling import Sampling
from edgetune.runtime.session import GenerationStats, Session

ANSWER_ROOM = 4
"""A prompt leaves at least one part in this many of the context for the answer, or the oldest turns go."""


class Conversation:
    """Turns between a user and the model of `session`.

    The ids of a turn are computed once and stay: what was sent stays as it was tokenized, what the model wrote stays as
    it wrote it, and only what the chat template puts behind them is tokenized anew. So the model reads the ids that
    training used, and the cache is reused from turn to turn.
    """

    def __init__(self, session: Session, *, system: str | None, sampling: Sampling, max_tokens: int) -> None:
        if max_tokens < 1:
            raise UsageError(f"max_tokens is {max_tokens}; it must be at least 1")
        self._session, self._sampling, self._max_tokens = session, sampling, max_tokens
        self._system = system
        self._turns: list[Message] = []
        self._text = ""
        self._ids: list[int] = []
        self.last_stats: GenerationStats | None = None
        """What the last answer took, if it came to one."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The system message, if there is one, and the turns that the model still remembers."""
        return self._with_system(self._turns)

    def set_system(self, text: str | None) -> None:
        """Change the system message and start anew."""
        self._system = text or None
        self.reset()

    def reset(self) -> None:
        """Forget all turns; the system message stays."""
        self._turns = []
        self._text, self._ids = "", []

    def ask(self, text: str) -> Generator[str, None, None]:
        """Send a user's turn and yield the answer piece by piece.

        When the caller stops reading, or Ctrl-C stops the model, what was written until then stays as the answer;
        close the generator (contextlib.closing) so that this happens at once. The oldest turns are dropped, with a
        note, when the context is full. Raises UsageError when this turn alone does not fit, and DataError when the
        chat template refuses the conversation; the conversation is then as before.
        """
        self.last_stats = None
        turns, prompt, ids = self._fit([*self._turns, Message("user", text)])
        written: list[str] = []
        ended = False
        pieces = self._session.generate(ids, sampling=self._sampling, max_tokens=self._max_tokens)
        try:
            with closing(pieces):
                for piece in pieces:
                    written.append(piece)
                    yield piece
            ended = True
        finally:
            stats = self._session.last_stats
            if stats is not None and (written or ended):
                self.last_stats = stats
                self._remember(turns, prompt, [*ids, *stats.token_ids], "".join(written))

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

    def _fit(self, turns: list[Message]) -> tuple[list[Message], str, list[int]]:
        """The turns that fit into the context, the prompt that they give, and its ids."""
        context = self._session.context_tokens
        room = context - min(self._max_tokens, context // ANSWER_ROOM)
        prompt = self._render(turns)
        if self._text and prompt.startswith(self._text):
            ids = self._ids + self._session.tokenize(prompt.removeprefix(self._text))
        else:
            ids = self._tokenize_anew(turns, prompt)
        dropped = 0
        while len(ids) > room and len(turns) > 1:
            turns = turns[2:]
            dropped += 1
            prompt = self._render(turns)
            ids = self._tokenize_anew(turns, prompt)
        if dropped:
            what = "oldest turn" if dropped == 1 else f"{dropped} oldest turns"
            events.note(f"forgot the {what}: the context of {context} tokens is full")
        return turns, prompt, ids

    def _tokenize_anew(self, turns: list[Message], prompt: str) -> list[int]:
        """The ids of a prompt, segment by segment as in training."""
        ids: list[int] = []
        if earlier := turns[:-1]:
            segments = self._session.template.segments(self._with_system(earlier))
            if prompt.startswith("".join(segment.text for segment in segments)):
                for segment in segments:
                    ids += self._session.tokenize(segment.text)
                    prompt = prompt.removeprefix(segment.text)
        return ids + self._session.tokenize(prompt)

    def _remember(self, turns: list[Message], prompt: str, ids: list[int], answer: str) -> None:
        """Add the answer. `ids` are those of `prompt` and of the answer as it was written."""
        self._turns = [*turns, Message("assistant", answer)]
        self._text, self._ids = "", []
        whole = self._session.template.render(self.messages)
        behind_prompt = whole.removeprefix(prompt)
        # Some templates strip the answer. Where one changes it in other ways, the next turn is tokenized anew.
        shown = next((form for form in (answer, answer.strip()) if behind_prompt.startswith(form)), None)
        if whole.startswith(prompt) and shown is not None:
            self._text = whole
            self._ids = [*ids, *self._session.tokenize(behind_prompt.removeprefix(shown))]

    def _render(self, turns: list[Message]) -> str:
        return self._session.template.render(self._with_system(turns), add_generation_prompt=True)

    def _with_system(self, turns: list[Message]) -> tuple[Message, ...]:
        return (*([Message("system", self._system)] if self._system else []), *turns)
