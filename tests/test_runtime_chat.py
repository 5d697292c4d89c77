"""A conversation keeps its ids and its cache from turn to turn, survives Ctrl-C, and the terminal around it listens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from edgetune.cli.terminal_chat import prompt_line, run_terminal
from edgetune.data.example import Message
from edgetune.data.template import ChatTemplate
from edgetune.errors import OutputError, UsageError
from edgetune.runtime.chat import Conversation
from edgetune.runtime.generation import Generation
from edgetune.runtime.grammar import TokenSampler
from edgetune.runtime.sampling import GREEDY
from edgetune.runtime.session import Session

CONTEXT_TOKENS = 256


@pytest.fixture(scope="module")
def session(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        with Session.open(smollm2_gguf, context_tokens=CONTEXT_TOKENS, threads=1) as opened:
            yield opened


@pytest.fixture
def conversation(session: Session) -> Conversation:
    return Conversation(session, system="Answer briefly.", sampling=GREEDY, max_tokens=12)


@pytest.fixture
def sent(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids of every prompt that goes to the model."""
    prompts: list[list[int]] = []
    real = session.generate

    def generate(ids: list[int], **options: object) -> object:
        prompts.append(list(ids))
        return real(ids, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "generate", generate)
    return prompts


def asked(conversation: Conversation, text: str) -> Generation:
    """The whole answer."""
    answer = conversation.ask(text)
    "".join(answer)
    return answer


def say(conversation: Conversation, text: str) -> str:
    return asked(conversation, text).text


def test_every_turn_is_sent_with_the_ids_that_training_would_use(
    session: Session, conversation: Conversation, sent: list[list[int]]
) -> None:
    for text in ("Say hi.", "And in French?", "Thanks! 😀"):
        before = conversation.messages or (Message("system", "Answer briefly."),)
        say(conversation, text)
        messages = (*before, Message("user", text))
        ids = []
        if len(before) > 1:
            for segment in session.vocabulary.template.segments(before):
                ids += session.vocabulary.tokenize(segment.text)
        start = len(session.vocabulary.template.render(before)) if len(before) > 1 else 0
        ids += session.vocabulary.tokenize(
            session.vocabulary.template.render(messages, add_generation_prompt=True)[start:]
        )
        assert sent[-1] == ids
    assert [message.role for message in conversation.messages] == ["system", *["user", "assistant"] * 3]


def test_a_second_turn_reads_only_what_is_new(conversation: Conversation) -> None:
    first, second = (asked(conversation, text).stats for text in ("Say hi.", "Again."))
    assert second.cached_tokens >= first.prompt_tokens + first.generated_tokens - 1


def test_a_template_that_strips_answers_keeps_the_ids_that_were_written(
    session: Session, sent: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{{ message.content | trim }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    monkeypatch.setitem(session.vocabulary.__dict__, "template", ChatTemplate(source, "", ""))
    answer = session.vocabulary.tokenize("\n hello \n")
    assert len(answer) > 2, "tokenized with what is around it, it would be other ids"
    drawn = iter([*answer, *session.vocabulary.tokenize("<|im_end|>")])
    monkeypatch.setattr(TokenSampler, "sample", lambda _sampler, _context: next(drawn))
    conversation = Conversation(session, system=None, sampling=GREEDY, max_tokens=20)
    assert say(conversation, "x") == "\n hello \n"
    conversation.ask("y")
    behind = [
        *session.vocabulary.tokenize("<|im_end|>\n"),
        *session.vocabulary.tokenize("<|im_start|>user\ny<|im_end|>\n<|im_start|>assistant\n"),
    ]
    assert sent[1] == [*sent[0], *answer, *behind]


def test_a_template_that_rewrites_earlier_turns_is_tokenized_anew(
    session: Session, sent: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "{% for message in messages %}{% if message.role == 'user' or loop.last %}<|im_start|>{{ message.role }}\n"
        "{{ message.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    monkeypatch.setitem(session.vocabulary.__dict__, "template", ChatTemplate(source, "", ""))
    conversation = Conversation(session, system=None, sampling=GREEDY, max_tokens=4)
    say(conversation, "one")
    say(conversation, "two")
    turns = "".join(f"<|im_start|>user\n{text}<|im_end|>\n" for text in ("one", "two"))
    assert sent[-1] == session.vocabulary.tokenize(turns + "<|im_start|>assistant\n")


def test_the_oldest_turns_go_when_the_context_is_full_and_the_system_message_stays(
    conversation: Conversation, sent: list[list[int]], capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        say(conversation, f"Remember the number {number}. " + "It is important. " * 8)
    assert max(map(len, sent)) + 12 <= CONTEXT_TOKENS
    assert conversation.messages[0] == Message("system", "Answer briefly.")
    assert conversation.messages[1].role == "user"
    assert "number 0" not in conversation.messages[1].content
    assert "number 5" in conversation.messages[-2].content
    assert "context of 256 tokens is full" in capfd.readouterr().err


def test_a_turn_that_never_fits_is_an_error_and_changes_nothing(conversation: Conversation) -> None:
    say(conversation, "Say hi.")
    before = conversation.messages
    with pytest.raises(UsageError, match="the context holds 256"):
        say(conversation, "too long " * 300)
    assert conversation.messages == before
    assert say(conversation, "Still there?")


def test_a_stopped_answer_stays_in_the_conversation(conversation: Conversation, sent: list[list[int]]) -> None:
    with closing(conversation.ask("Count to one hundred.")) as pieces:
        written = next(pieces) + next(pieces)
    assert conversation.messages[-1] == Message("assistant", written)
    assert asked(conversation, "Go on.").stats.cached_tokens > len(sent[0])


def test_saved_conversations_are_training_data_and_are_never_overwritten(
    conversation: Conversation, tmp_path: Path
) -> None:
    say(conversation, "Say hi.")
    conversation.save(tmp_path / "talk.json")
    conversation.save(tmp_path / "talk.jsonl")
    expected = {"messages": [{"role": message.role, "content": message.content} for message in conversation.messages]}
    assert json.loads((tmp_path / "talk.json").read_text()) == [expected]
    assert (tmp_path / "talk.jsonl").read_text().count("\n") == 1
    assert json.loads((tmp_path / "talk.jsonl").read_text()) == expected
    with pytest.raises(OutputError, match="exists already"):
        conversation.save(tmp_path / "talk.json")


def lines(*given: str | type[BaseException]) -> Callable[[], str]:
    """Stands in for the user at the keyboard; leaves with Ctrl-D at the end."""
    waiting = iter(given)

    def read() -> str:
        line = next(waiting, EOFError)
        if isinstance(line, str):
            return line
        raise line

    return read


def test_the_terminal_answers_and_shows_the_speed(
    conversation: Conversation, capfd: pytest.CaptureFixture[str]
) -> None:
    run_terminal(conversation, lines("Say hi.", "", "   "))
    output, errors = capfd.readouterr()
    assert output == conversation.messages[-1].content + "\n"
    assert "tokens/s" in errors


def test_commands_do_what_help_says(
    conversation: Conversation, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "talk.json"
    run_terminal(
        conversation,
        lines("/help", "/stats", "Say hi.", "/stats", f"/save {target}", f"/save {target}", "/save", "/rest", "/reset"),
    )
    output, errors = capfd.readouterr()
    for command in ("/system", "/reset", "/save", "/stats", "/quit", "Alt-Enter", "backslash"):
        assert command in errors
    assert "there is no answer yet" in errors
    assert "from the cache" in errors
    assert len(json.loads(target.read_text())[0]["messages"]) == 3
    assert "exists already" in errors
    assert "/save needs a file name" in errors
    assert "did you mean /reset?" in errors
    assert len(output.splitlines()) >= 1
    assert conversation.messages == (Message("system", "Answer briefly."),)


def test_a_system_message_can_be_set_and_taken_away(conversation: Conversation) -> None:
    run_terminal(conversation, lines("Say hi.", "/system Talk like a pirate."))
    assert conversation.messages == (Message("system", "Talk like a pirate."),)
    run_terminal(conversation, lines("/system"))
    assert conversation.messages == ()


def test_quit_and_ctrl_d_and_ctrl_c_twice_leave(conversation: Conversation) -> None:
    run_terminal(conversation, lines("/quit", AssertionError))
    run_terminal(conversation, lines(EOFError, AssertionError))
    run_terminal(conversation, lines(KeyboardInterrupt, KeyboardInterrupt, AssertionError))


def test_one_ctrl_c_at_the_prompt_does_not_leave(conversation: Conversation) -> None:
    run_terminal(conversation, lines(KeyboardInterrupt, "/system a", KeyboardInterrupt, "/system b"))
    assert conversation.messages == (Message("system", "b"),)


def test_ctrl_c_stops_the_answer_and_the_conversation_goes_on(
    conversation: Conversation, session: Session, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = session.vocabulary.piece
    calls = 0

    def piece(token: int, *, special: bool) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(token, special=special)

    monkeypatch.setattr(session.vocabulary, "piece", piece)
    run_terminal(conversation, lines("Count to one hundred.", "Go on."))
    output, errors = capfd.readouterr()
    assert "interrupted" in errors
    assert len(conversation.messages) == 5
    assert output.startswith(conversation.messages[2].content + "\n")


def test_errors_are_shown_and_the_conversation_goes_on(
    conversation: Conversation, capfd: pytest.CaptureFixture[str]
) -> None:
    run_terminal(conversation, lines("too long " * 300, "Say hi."))
    assert "error: the text has" in capfd.readouterr().err
    assert len(conversation.messages) == 3


@pytest.fixture
def keyboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    monkeypatch.setenv("EDGETUNE_CACHE", str(tmp_path / "cache"))
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("hello\r", "hello"),
        ("one\\\rtwo\r", "one\ntwo"),
        ("one\x1b\rtwo\r", "one\ntwo"),
        ("wrong\x03right\r", "right"),
    ],
    ids=["enter", "backslash", "alt-enter", "ctrl-c clears"],
)
def test_keys_make_a_message(keyboard: PipeInput, keys: str, line: str) -> None:
    keyboard.send_text(keys)
    assert prompt_line()() == line


def test_ctrl_c_on_an_empty_line_interrupts_and_ctrl_d_ends(keyboard: PipeInput) -> None:
    read = prompt_line()
    keyboard.send_text("\x03")
    with pytest.raises(KeyboardInterrupt):
        read()
    keyboard.send_text("\x04")
    with pytest.raises(EOFError):
        read()


def test_lines_are_remembered_from_one_chat_to_the_next(keyboard: PipeInput) -> None:
    keyboard.send_text("a question from last time\r")
    prompt_line()()
    keyboard.send_text("\x10\r")
    assert prompt_line()() == "a question from last time"


def test_without_a_writable_cache_there_is_still_a_line_editor(keyboard: PipeInput, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    keyboard.send_text("hello\r")
    assert prompt_line()() == "hello"
