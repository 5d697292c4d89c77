"""The chat in a terminal: reads lines, runs /commands, streams answers."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from edgetune import console, events
from edgetune.cache import cache_folder
from edgetune.errors import EdgetuneError
from edgetune.runtime.chat import Conversation
from edgetune.runtime.generation import Generation, GenerationStats

HELP = """\
/system TEXT  set the system message and start a new conversation; without TEXT, remove it
/reset        start a new conversation
/save FILE    write the conversation to FILE (.json or .jsonl), as training data of format messages
/stats        show the token counts and times of the last answer
/quit         quit; Ctrl-D, or Ctrl-C twice, does the same
Enter sends. Alt-Enter, or a backslash at the end of a line, starts a new line. Ctrl-C stops an answer."""

ReadLine = Callable[[], str]
"""Gives the next message. Raises KeyboardInterrupt on Ctrl-C and EOFError on Ctrl-D."""


def run_terminal(conversation: Conversation, read_line: ReadLine) -> None:
    """Talk until the user leaves. Errors are shown and the conversation goes on."""
    terminal = _Terminal(conversation)
    wants_to_leave = False
    while True:
        try:
            line = read_line().strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            if wants_to_leave:
                return
            wants_to_leave = True
            events.note("press Ctrl-C again or Ctrl-D, or type /quit, to quit")
            continue
        wants_to_leave = False
        if line == "/quit":
            return
        if line:
            try:
                terminal.handle(line)
            except EdgetuneError as problem:
                console.error(problem)


def prompt_line() -> ReadLine:
    """A line editor with history (kept in the cache folder) and several lines to a message."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    def _send_or_continue(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    def _clear_or_interrupt(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    history: History
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        (cache_folder() / "chat-history").touch()
        history = FileHistory(str(cache_folder() / "chat-history"))
    except OSError:
        history = InMemoryHistory()
    session: PromptSession[str] = PromptSession(
        history=history, key_bindings=keys, multiline=True, prompt_continuation="… "
    )
    return lambda: session.prompt("> ")


def describe(stats: GenerationStats) -> str:
    """One line about an answer: `42 tokens, 61.3 tokens/s, first after 0.21 s`."""
    line = f"{stats.generated_tokens} tokens, {stats.tokens_per_second:.1f} tokens/s"
    line += f", first after {stats.time_to_first_token:.2f} s"
    endings = {
        "length": "; stopped at --max-tokens",
        "context": "; stopped because the context is full",
        "interrupted": "; interrupted",
    }
    return line + endings.get(stats.finish_reason, "")


class _Terminal:
    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._written: Generation | None = None
        """The last answer."""
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/system": self._system,
            "/reset": self._reset,
            "/save": self._save,
            "/stats": self._stats,
        }

    def handle(self, line: str) -> None:
        """Run a command, or send a message and stream the answer."""
        command, _, argument = line.partition(" ")
        if command in self._commands:
            self._commands[command](argument.strip())
        elif command.startswith("/") and command[1:].isalpha():
            near = difflib.get_close_matches(command, [*self._commands, "/quit"], n=1)
            events.note(
                f"unknown command {command}{f' (did you mean {near[0]}?)' if near else ''}; /help lists the commands"
            )
        else:
            self._answer(line)

    def _answer(self, text: str) -> None:
        self._written = None
        self._written = answer = self._conversation.ask(text)
        try:
            with closing(answer):
                for piece in answer:
                    console.verbatim(piece, end="")
        except KeyboardInterrupt:
            pass
        console.verbatim("")
        if answer.is_answer:
            events.note(describe(answer.stats))

    def _help(self, _argument: str) -> None:
        events.note(HELP)

    def _system(self, argument: str) -> None:
        self._conversation.set_system(argument)
        events.note("system message set; new conversation" if argument else "system message removed")

    def _reset(self, _argument: str) -> None:
        self._conversation.reset()
        events.note("new conversation")

    def _save(self, argument: str) -> None:
        if not argument:
            events.note("/save needs a file name")
            return
        self._conversation.save(Path(argument).expanduser())
        events.note(f"saved to {argument}")

    def _stats(self, _argument: str) -> None:
        if self._written is None or not self._written.is_answer:
            events.note("there is no answer yet")
            return
        stats = self._written.stats
        events.note(
            f"prompt {stats.prompt_tokens} tokens ({stats.cached_tokens} of them from the cache) "
            f"in {stats.prompt_seconds:.2f} s; answer {describe(stats)}"
        )
