"""`edgetune chat` from the outside: one answer on stdout, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgetune.runtime.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return os.environ | {"EDGETUNE_CACHE": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "100"}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "edgetune", "chat", *map(str, arguments)]


def run(
    environment: dict[str, str], *arguments: str | Path, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment, input=text or "", capture_output=True, text=True, timeout=120, check=False
    )


def test_a_prompt_is_answered_on_stdout_and_nothing_else_is_there(
    smollm2_gguf: Path, environment: dict[str, str]
) -> None:
    options = (smollm2_gguf, "--temperature", "0", "--max-tokens", "12", "--threads", "1")
    asked = run(environment, *options, "--prompt", "Say hi.")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.strip()
    piped = run(environment, *options, text="Say hi.\n")
    assert (piped.returncode, piped.stdout) == (0, asked.stdout)
    document = json.loads(run(environment, *options, "--prompt", "Say hi.", "--json").stdout)
    assert document["prompt"] == "Say hi."
    assert document["answer"] + "\n" == asked.stdout
    assert document["finish_reason"] in ("stop", "length")
    assert 0 < document["tokens"] <= 12
    assert document["tokens_per_second"] > 0


def test_the_system_message_reaches_the_model(smollm2_gguf: Path, environment: dict[str, str]) -> None:
    options = (smollm2_gguf, "--max-tokens", "1", "--threads", "1", "--json", "--prompt", "Hi")
    plain = json.loads(run(environment, *options, "--system", "x").stdout)
    longer = json.loads(run(environment, *options, "--system", "x and more words than before").stdout)
    assert longer["prompt_tokens"] > plain["prompt_tokens"]


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (["--prompt", ""], None, "--prompt is empty"),
        (["--prompt", " \n"], None, "--prompt is empty"),
        ([], "", "standard input is empty"),
        (["--prompt", "x", "--temperature", "-1"], None, "temperature is -1.0; it must be at least 0"),
        (["--prompt", "x", "--max-tokens", "0"], None, "max_tokens is 0"),
        (["--prompt", "x", "--threads", "0"], None, "threads is 0"),
        (["--prompt", "x " * 400, "--context", "64"], None, "the context holds 64"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_exit_code_2(
    smollm2_gguf: Path, environment: dict[str, str], arguments: list[str], text: str | None, words: str
) -> None:
    done = run(environment, smollm2_gguf, *arguments, text=text)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("content", [None, b"", b"hello", b"GGUF\x03\x00", "tiny"])
def test_a_bad_file_is_one_line_and_exit_code_2(
    tmp_path: Path, environment: dict[str, str], content: bytes | str | None
) -> None:
    file = tmp_path / "bad.gguf"
    if content == "tiny":
        write_tiny_model(file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    done = run(environment, file, "--prompt", "x")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert str(file) in done.stderr
    assert done.stderr.count("\n") == 1


def test_bytes_that_are_no_text_are_refused(smollm2_gguf: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command(smollm2_gguf), env=environment, input=b"\xff\xfe\x00", capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert b"not UTF-8" in done.stderr


def test_ctrl_c_during_an_answer_exits_130_without_a_traceback_and_keeps_what_was_written(
    smollm2_gguf: Path, environment: dict[str, str]
) -> None:
    arguments = ("--prompt", "Write a very long story.", "--temperature", "0", "--max-tokens", "2000", "--threads", "1")
    with subprocess.Popen(
        command(smollm2_gguf, *arguments), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        first = child.stdout.read(4)
        child.send_signal(signal.SIGINT)
        rest, errors = child.stdout.read(), child.stderr.read()
    assert child.returncode == 130
    assert first
    assert rest.endswith(b"\n")
    assert b"Traceback" not in errors
    assert errors == b"error: stopped\n"


def test_a_terminal_gets_a_conversation(smollm2_gguf: Path, environment: dict[str, str]) -> None:
    master, terminal = pty.openpty()
    options = ("--temperature", "0", "--max-tokens", "5", "--threads", "1")
    with subprocess.Popen(
        command(smollm2_gguf, *options),
        env=environment | {"TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as child:
        os.close(terminal)
        try:
            screen = Screen(master)
            screen.wait_for(b"/help lists the commands")
            screen.wait_for(EDITOR_IS_READY)
            os.write(master, b"Say hi.\r")
            screen.wait_for(b"tokens/s")
            screen.wait_for(EDITOR_IS_READY)
            os.write(master, b"\x04")
            screen.wait_for_end()
            child.wait(30)
        finally:
            child.kill()
    os.close(master)
    assert child.returncode == 0


EDITOR_IS_READY = b"\x1b[?2004h"
"""prompt_toolkit turns bracketed paste on when it starts to read a line."""
ASKS_FOR_CURSOR, CURSOR_IS_AT_TOP = b"\x1b[6n", b"\x1b[1;1R"


class Screen:
    """What a program writes to its terminal, read in order."""

    def __init__(self, terminal: int) -> None:
        self._terminal, self._unread = terminal, b""

    def wait_for(self, words: bytes) -> None:
        """Read until these words have appeared."""
        while words not in self._unread:
            assert self._read(), f"the program left after {self._unread!r}"
        self._unread = self._unread.partition(words)[2]

    def wait_for_end(self) -> None:
        """Read until the program has left the terminal."""
        while self._read():
            pass

    def _read(self) -> bool:
        assert select.select([self._terminal], [], [], 60)[0], f"nothing comes after {self._unread!r}"
        try:
            part = os.read(self._terminal, 4096)
        except OSError:  # how Linux tells that nobody is left at the other end
            return False
        self._unread += part
        if ASKS_FOR_CURSOR in part:
            os.write(self._terminal, CURSOR_IS_AT_TOP)
        return bool(part)


def test_a_model_whose_last_megabyte_is_damaged_writes_nothing(
    smollm2_gguf: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    damaged = tmp_path / "damaged.gguf"
    shutil.copyfile(smollm2_gguf, damaged)
    with damaged.open("r+b") as file:
        file.seek(-(2**20), os.SEEK_END)
        file.write(b"\xff" * 2**20)
    done = run(environment, damaged, "--prompt", "Say hi.", "--max-tokens", "50", "--threads", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {damaged}: what it computes is not finite (NaN or infinite): the file is damaged; "
        "export or download it again; `edgetune verify` checks a file\n"
    )
