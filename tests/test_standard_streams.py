"""What stands behind stdout and stderr: encodings, terminals, pipes that close, disks that are full, nothing at all."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.color import ColorSystem
from rich.text import Text
from support.parrot import write_parrot

from edgetune import display, events
from edgetune.visible_text import visible, visible_json

HOSTILE = "\x1b]0;pwned\x07\x1b[2J\x9b31m\x7f\x08\u202egnp.exe\u2066 [bold]b[/bold] :smile: \U0001f600"
"""Sets a terminal's title, clears it, colours it, and turns text around; and what Rich would take for its own."""
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What no text for people may hold."""

ENCODINGS = [
    {"LC_ALL": "C"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
]
ANSWERS = ("--prompt", "é", "--temperature", "0", "--max-tokens", "2", "--threads", "1")
FULL = Path("/dev/full")
needs_a_full_disk = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


@pytest.fixture(scope="module")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes faces, in a folder whose name is not ASCII."""
    return write_parrot(tmp_path_factory.mktemp("modèle") / "parrot.gguf", "\U0001f600")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose name, architecture's description, template and answers try to steer the terminal."""
    return write_parrot(
        tmp_path_factory.mktemp("hostile") / "model.gguf",
        HOSTILE,
        name=HOSTILE,
        template="{# " + HOSTILE + " #}{{ messages[-1].content }}",
    )


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "edgetune", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    ours = ("LC_ALL", "LANG", "LC_CTYPE", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE", "NO_COLOR")
    return {name: value for name, value in os.environ.items() if name not in ours} | {"COLUMNS": "120"} | changes


def run(*arguments: str | Path, **options) -> subprocess.CompletedProcess[bytes]:
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 120}
    settings |= {"env": environment(LC_ALL="C.UTF-8")} | options
    return subprocess.run(command(*arguments), check=False, **settings)


@pytest.mark.parametrize("settings", ENCODINGS, ids=lambda settings: " ".join(f"{k}={v}" for k, v in settings.items()))
def test_what_an_encoding_lacks_is_written_by_its_number(parrot: Path, settings: dict[str, str]) -> None:
    answered = run("chat", parrot, *ANSWERS, env=environment(**settings))
    assert (answered.returncode, answered.stderr) == (0, b"")
    assert answered.stdout in ("\U0001f600\U0001f600\n".encode(), b"\\U0001f600\\U0001f600\n")
    refused = run("inspect", parrot.with_name("fehlt–.gguf"), env=environment(**settings))
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert refused.stderr.startswith(b"error: ")
    assert refused.stderr.count(b"\n") == 1


def test_json_is_of_the_same_value_in_any_encoding(parrot: Path) -> None:
    texts = [
        run("chat", parrot, *ANSWERS, "--json", env=environment(**settings)).stdout
        for settings in ({"LC_ALL": "C.UTF-8"}, {"PYTHONIOENCODING": "ascii"})
    ]
    texts[1].decode("ascii")
    assert [json.loads(text)["answer"] for text in texts] == ["\U0001f600\U0001f600"] * 2


def test_piped_input_is_utf8_in_any_locale(parrot: Path) -> None:
    asked = "où – \U0001f600\r\n"
    settings = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    options = ("--max-tokens", "1", "--json")
    seen = run("chat", parrot, *options, stdin=None, input=asked.encode(), env=environment(**settings))
    assert json.loads(seen.stdout)["prompt"] == asked.rstrip()


def test_a_files_control_characters_do_not_reach_a_pipe(hostile: Path) -> None:
    shown = run("inspect", hostile)
    assert (shown.returncode, shown.stderr) == (0, b"")
    text = shown.stdout.decode()
    assert not STEERS.search(text)
    # Rich leaves the bell and the backspace out.
    assert "␛]0;pwned␛[2J⟨U+009B⟩31m␡⟨U+202E⟩gnp.exe⟨U+2066⟩ [bold]b[/bold] :smile: \U0001f600" in text


def test_a_files_control_characters_do_not_reach_a_terminal(hostile: Path) -> None:
    for arguments in (("inspect", hostile), ("chat", hostile, *ANSWERS)):
        seen = on_a_terminal(*arguments)
        assert "␛]0;pwned" in seen
        assert "\x1b]" not in seen
        assert "\x1b[2J" not in seen
        assert not STEERS.search(re.sub(r"\x1b\[[0-9;]*m|\r\n", "", seen))  # Rich's colours, the terminal's line ends


def test_a_pipe_gets_an_answer_as_the_model_wrote_it(hostile: Path) -> None:
    assert run("chat", hostile, *ANSWERS).stdout.decode() == 2 * HOSTILE + "\n"


def test_an_error_shows_what_a_file_says_and_does_not_obey_it(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text('name: x\n"\\e]0;pwned\\a[red]\\u202E": 1\n')
    refused = run("train", recipe)
    assert refused.returncode == 2
    assert not STEERS.search(refused.stderr.decode())
    assert "␛]0;pwned␇[red]⟨U+202E⟩" in refused.stderr.decode()


@pytest.mark.parametrize("name", ["[red]:smile:[/red]", "\x1b[31m", b"\xff\x9b".decode("utf-8", "surrogateescape")])
def test_a_path_is_text_whatever_stands_in_it(parrot: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.gguf"
    file.parent.mkdir(exist_ok=True)
    file.symlink_to(parrot)
    shown = run("inspect", f"{name}.gguf", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert visible(f"{name}.gguf").encode() in shown.stdout


def test_rows_labels_and_file_names_are_shown_and_not_obeyed(edgetune_command, tmp_path: Path) -> None:
    label = HOSTILE.removesuffix(" \U0001f600")  # YAML has no escape for the two halves that JSON writes
    rows = [{"text": f"{HOSTILE} {number % 2}", "label": label} for number in range(4)]
    data = tmp_path / "[bold]rows\x1b[2J.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {"name": "x", "task": "classify", "base": {"model": str(tmp_path / "nowhere")}, "method": {"type": "lora"}}
    source = {"source": data.name, "format": "text-label"}
    recipe["data"] = {"train": [source], "eval": [source], "labels": [label, "b"], "prompt": "{text}"}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    seen = edgetune_command("data", "check", tmp_path / "recipe.yaml")
    assert seen.exit_code == 1, seen.stderr
    assert "LEAKAGE" in seen.stdout
    assert "[bold]rows␛[2J.jsonl" in seen.stdout
    assert not STEERS.search(seen.stdout + seen.stderr)


def test_a_progress_bar_shows_what_it_is_told_and_does_not_obey_it(monkeypatch, capfd) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a bar is drawn, not lines
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    display.show_progress(False)
    bars = display._Display(display.SafeConsole(stderr=True))
    with events.listen(bars), events.progress("reading \x1b]0;pwned\x07\u202e[/x]", 2, "files") as bar:
        bar.advance(1, "\x1b]0;pwned\x07 [/y]")
    drawn = capfd.readouterr().err
    assert "reading ␛]0;pwned␇⟨U+202E⟩[/x]" in drawn
    assert "␛]0;pwned␇ [/y]" in drawn
    assert "\x1b]" not in drawn


def test_styles_stay_where_they_were_when_characters_before_them_grow(capsys) -> None:
    shown = display.SafeConsole()
    shown._color_system = ColorSystem.STANDARD
    shown.print(Text.assemble("\u202e\x9b", ("red", "red"), "\x1b"))
    assert capsys.readouterr().out == "⟨U+202E⟩⟨U+009B⟩\x1b[31mred\x1b[0m␛\n"


COMMANDS = [
    ("--help",),
    ("recipes", "--json"),
    ("inspect", "MODEL"),
    ("chat", "MODEL", *ANSWERS),
]


def of(arguments: tuple[str, ...], model: Path) -> list[str | Path]:
    return [model if argument == "MODEL" else argument for argument in arguments]


@needs_a_full_disk
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_disk_behind_stdout_is_one_error(parrot: Path, arguments: tuple[str, ...]) -> None:
    with FULL.open("wb") as full:
        seen = run(*of(arguments, parrot), stdout=full)
    assert seen.returncode == 2
    assert seen.stderr.decode() == (
        "error: standard output: cannot be written (No space left on device); free some space, or send it elsewhere\n"
    )


@needs_a_full_disk
def test_a_full_disk_behind_stderr_loses_the_notes_and_nothing_else(parrot: Path) -> None:
    with FULL.open("wb") as full:
        answered = run("chat", parrot, *ANSWERS, stderr=full)
        refused = run("train", "dmo", "--json", stderr=full)
        misused = run("train", "demo", "--epochs", stderr=full)
    assert (answered.returncode, answered.stdout) == (0, "\U0001f600\U0001f600\n".encode())
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["exit_code"] == 2
    assert (misused.returncode, misused.stdout) == (2, b"")


@needs_a_full_disk
def test_with_both_full_the_exit_code_tells(parrot: Path) -> None:
    with FULL.open("wb") as full:
        assert run("inspect", parrot, stdout=full, stderr=full).returncode == 2
        assert run("train", "dmo", "--json", stdout=full, stderr=full).returncode == 2


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_reader_that_has_left_ends_a_command_quietly(parrot: Path, arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    seen = run(*of(arguments, parrot), stdout=writer)
    os.close(writer)
    assert (seen.returncode, seen.stderr) == (1, b"")


def test_an_errors_exit_code_stays_where_nobody_reads(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert run("train", "dmo", "--json", stdout=writer).returncode == 2
    assert run("train", "dmo", stdout=writer, stderr=writer).returncode == 2
    os.close(writer)


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_the_null_device(parrot: Path, closed: str) -> None:
    words = ["sh", "-c", f'"$@" {closed}', "sh", *command("chat", parrot, *ANSWERS)]
    seen = subprocess.run(words, capture_output=True, env=environment(LC_ALL="C.UTF-8"), timeout=120, check=False)
    assert seen.returncode == 0
    assert seen.stderr == b""
    assert seen.stdout == (b"" if " >" in f" {closed}" else "\U0001f600\U0001f600\n".encode())


def test_closed_input_is_empty_input(parrot: Path) -> None:
    words = ["sh", "-c", '"$@" <&-', "sh", *command("chat", parrot)]
    seen = subprocess.run(words, capture_output=True, env=environment(), timeout=120, check=False)
    assert seen.returncode == 2
    assert b"standard input is empty" in seen.stderr


def test_what_json_lets_through_is_escaped_in_it() -> None:
    value = {HOSTILE: "\ud800 \u2028 é"}
    text = visible_json(json.dumps(value, ensure_ascii=False))
    assert not STEERS.search(text)
    assert "é" in text
    assert json.loads(text) == value
    text.encode()


def on_a_terminal(*arguments: str | Path) -> str:
    """What a command writes where stdout is a terminal."""
    master, terminal = pty.openpty()
    parts: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(master, 65536):
                parts.append(part)
        except OSError:  # how Linux tells that nobody is left at the other end
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        seen = run(*arguments, stdout=terminal, env=environment(LC_ALL="C.UTF-8", TERM="xterm"))
    finally:
        os.close(terminal)
    reader.join(60)
    os.close(master)
    assert (seen.returncode, seen.stderr) == (0, b"")
    return b"".join(parts).decode()
