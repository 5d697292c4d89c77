"""A crash in native code is found in a child process and becomes one clear line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import gguf
import pytest
from conftest import CommandResult
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.errors import ModelError
from edgetune.models.gguf_file import GgufFile
from edgetune.runtime import probe, speed
from edgetune.runtime.session import Session
from edgetune.runtime.tiny_model import write_tiny_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGETUNE_CACHE", str(folder))
    monkeypatch.delenv(probe.SWITCH, raising=False)
    monkeypatch.setattr(speed, "_speeds", lambda *_sizes, **_kernels: None)
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_tiny_model(path)
    return path


class Children:
    """Stands in for the child: counts the calls, and dies of `deaths[extra_kernels]` where that is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Path, bool]] = []
        self.deaths: dict[bool, signal.Signals] = {}
        self._real = probe.child_command
        monkeypatch.setattr(probe, "child_command", self.command)

    def command(self, model: Path, *, extra_kernels: bool) -> list[str]:
        self.calls.append((model, extra_kernels))
        death = self.deaths.get(extra_kernels)
        if death is None:
            return self._real(model, extra_kernels=extra_kernels)
        return [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(death)})"]


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Children:
    return Children(monkeypatch)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What every load of a model in this process said about the extra kernels."""
    import llama_cpp

    real = llama_cpp.llama_model_load_from_file
    asked: list[bool] = []

    def load(path: bytes, parameters: llama_cpp.llama_model_params) -> object:
        asked.append(parameters.use_extra_bufts)
        return real(path, parameters)

    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", load)
    return asked


def test_a_healthy_machine_keeps_the_extra_kernels_and_is_asked_once(
    smollm2_gguf: Path, children: Children, loads: list[bool], capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        with Session.open(smollm2_gguf, context_tokens=64, threads=1) as session:
            assert session.extra_kernels
    assert loads == [True, True]
    assert len(children.calls) == 2, "one child for the machine, one for the file"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("death", [signal.SIGILL, signal.SIGSEGV])
def test_kernels_that_crash_are_turned_off_with_one_note_and_the_answer_is_remembered(
    death: signal.Signals,
    smollm2_gguf: Path,
    children: Children,
    loads: list[bool],
    cache: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    children.deaths[True] = death
    with Session.open(smollm2_gguf, context_tokens=64, threads=1) as session:
        assert not session.extra_kernels
    note = capfd.readouterr().err
    assert note.count("extra CPU kernels do not run on this machine") == 1
    assert death.name in note
    asked = len(children.calls)
    with Session.open(smollm2_gguf, context_tokens=64, threads=1) as session:
        assert not session.extra_kernels
    assert len(children.calls) == asked
    assert loads == [False, False]
    assert capfd.readouterr().err == ""
    assert all(json.loads(file.read_text())["extra_kernels"] is False for file in (cache / "probe").iterdir())


def test_a_file_on_which_only_the_extra_kernels_crash_is_opened_without_them(
    tiny: Path, children: Children, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "extra_kernels_work", lambda: True)
    children.deaths[True] = signal.SIGSEGV
    assert not probe.check_file(tiny).extra_kernels
    assert "fail on this file" in capfd.readouterr().err
    assert not probe.check_file(tiny).extra_kernels
    assert len(children.calls) == 2


def test_a_file_that_crashes_llama_cpp_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf.GGUFWriter, "add_layer_norm_rms_eps", _write_negative_epsilon)
    file = tmp_path / "crashes.gguf"
    write_tiny_model(file)
    with pytest.raises(ModelError, match="crashes on this file") as caught:
        Session.open(file)
    assert str(file) in str(caught.value)
    assert "SIGABRT" in str(caught.value)
    assert "eps >= 0" in str(caught.value)


def _write_negative_epsilon(writer: gguf.GGUFWriter, _value: float) -> None:
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", -1.0)


def test_the_switch_turns_the_extra_kernels_off_without_asking(
    tiny: Path, smollm2_gguf: Path, children: Children, loads: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(probe.SWITCH, "off")
    children.deaths[True] = signal.SIGILL
    with Session.open(smollm2_gguf, context_tokens=64, threads=1) as session:
        assert not session.extra_kernels
    assert [extra for _, extra in children.calls] == [False], "only the file is checked"
    assert loads == [False]
    monkeypatch.setenv(probe.SWITCH, "auto")
    children.deaths.clear()
    assert probe.check_file(smollm2_gguf).extra_kernels, "what was found without the kernels does not hold with them"


def test_a_switch_that_says_something_else_is_one_clear_error(
    edgetune_command: Callable[..., CommandResult], smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(probe.SWITCH, "never")
    said = edgetune_command("chat", smollm2_gguf, "--prompt", "hi")
    assert said.exit_code == 2
    assert "EDGETUNE_EXTRA_KERNELS is 'never'; set it to auto or to off" in " ".join(said.stderr.split())


def test_running_out_of_memory_is_named_by_the_signal(tiny: Path, children: Children) -> None:
    children.deaths = {True: signal.SIGKILL, False: signal.SIGKILL}
    with pytest.raises(ModelError, match=r"SIGKILL.*memory"):
        probe.check_file(tiny)


def test_a_changed_file_is_checked_again(tiny: Path, children: Children) -> None:
    probe.check_file(tiny)
    before = len(children.calls)
    probe.check_file(tiny)
    assert len(children.calls) == before
    os.utime(tiny, ns=(0, 0))
    probe.check_file(tiny)
    assert len(children.calls) == before + 1


def test_a_child_that_cannot_do_its_work_is_not_remembered_as_a_crash(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        probe, "child_command", lambda _model, extra_kernels: [sys.executable, "-c", "raise ImportError"]
    )
    assert probe.extra_kernels_work() is False
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_or_read_only_costs_the_memory(
    tiny: Path, cache: Path, children: Children
) -> None:
    cache.write_text("a file where the folder should be")
    assert probe.check_file(tiny).extra_kernels
    assert probe.check_file(tiny).extra_kernels
    assert len(children.calls) == 4


def test_a_damaged_record_is_asked_again(tiny: Path, cache: Path, children: Children) -> None:
    probe.check_file(tiny)
    for record in (cache / "probe").iterdir():
        record.write_text("[")
    assert probe.check_file(tiny).extra_kernels
    assert len(children.calls) == 4


def test_a_refusal_of_llama_cpp_gives_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "nosuch.gguf"
    writer = gguf.GGUFWriter(file, "nosuch")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"unknown model architecture: 'nosuch'.*update llama-cpp-python"):
        Session.open(file)


def test_a_missing_file_says_so_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.gguf: there is no such file; .*edgetune export"):
        Session.open(tmp_path / "nothing.gguf")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        Session.open(tmp_path)


def test_a_file_that_is_no_gguf_says_how_it_starts(tmp_path: Path) -> None:
    file = tmp_path / "notes.gguf"
    file.write_text("Dear diary")
    with pytest.raises(ModelError, match=r"not a GGUF file: it starts with b'Dear'"):
        Session.open(file)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ModelError, match="is empty"):
        Session.open(tmp_path / "empty.gguf")


def test_a_file_cut_off_in_its_tensors_gives_both_sizes(tiny: Path) -> None:
    whole = tiny.read_bytes()
    assert GgufFile(tiny).expected_bytes <= len(whole)
    tiny.write_bytes(whole[:-5000])
    with pytest.raises(
        ModelError, match=rf"truncated: its tensors need [\d,]+ bytes, the file has {len(whole) - 5000:,}"
    ):
        Session.open(tiny)


@lru_cache(maxsize=1)
def _tiny_content() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_model(Path(folder) / "tiny.gguf")
        return (Path(folder) / "tiny.gguf").read_bytes()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_header_cut_off_or_overwritten_anywhere_is_an_error_or_read(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "header.gguf"
    content = bytearray(_tiny_content())
    position = data.draw(st.integers(4, 1200))
    if data.draw(st.booleans()):
        file.write_bytes(content[:position])
        with pytest.raises(ModelError, match="truncated"):
            GgufFile(file)
    else:
        content[position : position + 8] = data.draw(st.binary(min_size=8, max_size=8))
        file.write_bytes(content)
        with contextlib.suppress(ModelError):
            GgufFile(file)


def test_a_file_without_a_vocabulary_is_refused_before_it_can_abort(tiny: Path) -> None:
    with pytest.raises(ModelError, match="no vocabulary"):
        Session.open(tiny)
