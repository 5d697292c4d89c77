"""The quickest way to run llama.cpp here is measured once, in a child, and llama.cpp's own choice stands in for it."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from edgetune.models.gguf_file import GgufFile
from edgetune.runtime import probe, speed
from edgetune.runtime.runnable import RunnableFile
from edgetune.runtime.session import Session
from edgetune.runtime.speed import Choice, Speeds, TokenPace, choose, measure, quickest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGETUNE_CACHE", str(folder))
    return folder


EVEN = TokenPace(read=1.0, written=4.0)

QUICK_EXTRA = Speeds(EVEN, TokenPace(0.2, 4.0), EVEN, EVEN)
SLOW_READING_EXTRA = Speeds(EVEN, TokenPace(1.8, 3.9), EVEN, EVEN)
QUICK_WRITING_EXTRA = Speeds(EVEN, TokenPace(1.05, 3.0), EVEN, EVEN)
SLOW_FLASH = Speeds(EVEN, None, TokenPace(1.0, 8.0), EVEN)
QUICK_READING_FLASH = Speeds(EVEN, None, TokenPace(0.8, 4.2), EVEN)
EQUAL = Speeds(EVEN, EVEN, EVEN, EVEN)


@pytest.mark.parametrize(
    ("speeds", "chat", "judge"),
    [
        (QUICK_EXTRA, Choice(True, True), Choice(True, True)),
        (SLOW_READING_EXTRA, Choice(False, True), Choice(False, True)),
        (QUICK_WRITING_EXTRA, Choice(True, True), Choice(False, True)),
        (SLOW_FLASH, Choice(False, False), Choice(False, True)),
        (QUICK_READING_FLASH, Choice(False, True), Choice(False, True)),
        (EQUAL, Choice(False, True), Choice(False, True)),
    ],
)
def test_what_is_clearly_quicker_for_a_use_is_taken(speeds: Speeds, chat: Choice, judge: Choice) -> None:
    assert (choose(speeds, "chat"), choose(speeds, "judge")) == (chat, judge)


class Children:
    """Stands in for the child: counts the calls, and says what is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
        self.calls = 0
        real = probe.run_in_child

        def run(command: list[str], *, timeout_seconds: float | None = None) -> probe.Outcome:
            if "edgetune.runtime.speed" not in command:
                return real(command, timeout_seconds=timeout_seconds)
            self.calls += 1
            return real([sys.executable, "-c", program], timeout_seconds=timeout_seconds)

        monkeypatch.setattr(probe, "run_in_child", run)


MEASURED = {
    "plain": {"read": 1.0, "written": 1.0},
    "extra": {"read": 0.5, "written": 1.0},
    "flash_attention": {"read": 1.0, "written": 2.0},
    "exact_attention": {"read": 1.0, "written": 1.0},
}


def test_a_session_is_opened_as_was_measured_which_is_remembered(
    smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = Children(monkeypatch, f"print({json.dumps(json.dumps(MEASURED))})")
    header = GgufFile(smollm2_gguf).metadata
    monkeypatch.setattr(probe, "check_file", lambda path: RunnableFile(path, header, extra_kernels=True))
    for _ in range(2):
        with Session.open(smollm2_gguf, context_tokens=64, threads=1) as session:
            assert (session.extra_kernels, session.flash_attention) == (True, False)
    with Session.open(smollm2_gguf, context_tokens=64, threads=1, flash_attention=True) as session:
        assert session.flash_attention
    assert children.calls == 1


@pytest.mark.parametrize(
    ("program", "calls"),
    [
        (f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})", 1),
        ("print('{}')", 1),
        ("raise ImportError", 2),
    ],
)
def test_without_a_measurement_the_choice_is_llama_cpps_own(
    program: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = Children(monkeypatch, program)
    for _ in range(2):
        assert quickest(64, use="chat", extra_kernels=True) == Choice(True, True)
    assert children.calls == calls, "a crash is remembered, a child that could not do its work is not"


@pytest.mark.parametrize("head_size", [0, 3, 10_000])
def test_heads_of_no_known_size_are_not_measured(head_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    children = Children(monkeypatch, "raise ImportError")
    assert quickest(head_size, use="judge", extra_kernels=False) == Choice(False, True)
    assert children.calls == 0


@pytest.mark.parametrize("extra_kernels", [False, True])
def test_each_way_is_really_measured(extra_kernels: bool) -> None:
    if extra_kernels and not probe.extra_kernels_work():
        pytest.skip("llama.cpp's extra kernels crash on this machine")
    found = measure(80, extra_kernels=extra_kernels)
    assert (found.extra is not None) is extra_kernels
    for pace in (found.plain, found.extra or found.plain, found.flash_attention, found.exact_attention):
        assert 0 < pace.read < pace.written < 1


def test_the_child_gives_what_the_session_reads() -> None:
    assert speed._speeds(64, extra_kernels=False) is not None
