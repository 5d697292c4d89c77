"""A test that kills its process or hangs ends the whole run, with its name and an exit status that is not 0."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import native_reference
from support.native_reference import ReferenceDied, in_child

PROJECT = Path(__file__).resolve().parents[1]

OTHERS = "".join(f"def test_other_{number}():\n    pass\n\n" for number in range(20))


def run_tests(folder: Path, body: str, *options: str) -> tuple[int, str]:
    """Run a file whose first test does `body` as `make tests` runs the project's, on two workers."""
    (folder / "test_deadly.py").write_text(f"import os\n\n\ndef test_deadly():\n    {body}\n\n\n{OTHERS}")
    for name in ("test_a.py", "test_b.py", "test_c.py"):
        (folder / name).write_text(OTHERS)
    command = [sys.executable, "-m", "pytest", "-c", PROJECT / "pyproject.toml", "--rootdir", folder, folder]
    command += ["-n", "2", "--dist", "loadscope", "-p", "no:cacheprovider", *options]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("death", [signal.SIGILL, signal.SIGKILL])
def test_a_worker_that_dies_ends_the_run_with_the_name_of_its_test(death: signal.Signals, tmp_path: Path) -> None:
    status, said = run_tests(tmp_path, f"os.kill(os.getpid(), {int(death)})")
    assert status not in (0, 5), said
    assert "test_deadly.py::test_deadly" in said, said


def test_a_test_that_hangs_ends_the_run_with_its_name(tmp_path: Path) -> None:
    status, said = run_tests(tmp_path, "import time; time.sleep(100)", "-o", "timeout=1")
    assert status not in (0, 5), said
    assert "test_deadly.py::test_deadly" in said, said


def test_without_them_the_same_run_passes(tmp_path: Path) -> None:
    status, said = run_tests(tmp_path, "pass")
    assert status == 0, said
    assert "81 passed" in said


def die_of_an_illegal_instruction() -> None:
    os.kill(os.getpid(), signal.SIGILL)


def fail() -> None:
    raise ValueError("no such thing")


def hang() -> None:
    signal.pause()


def kernels_asked_for() -> bool:
    """What the module of `llama_cpp.Llama` asks for by default."""
    from llama_cpp.llama import llama_cpp

    return llama_cpp.llama_model_default_params().use_extra_bufts


def test_a_native_reference_that_dies_is_one_failed_test() -> None:
    with pytest.raises(ReferenceDied, match="die_of_an_illegal_instruction died of SIGILL"):
        in_child(die_of_an_illegal_instruction)


def test_a_native_reference_that_fails_shows_its_traceback() -> None:
    with pytest.raises(AssertionError, match=r"(?s)fail failed:.*ValueError: no such thing"):
        in_child(fail)


def test_a_native_reference_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_reference, "TIMEOUT_SECONDS", 3)
    with pytest.raises(ReferenceDied, match="hang gave no answer in 3 s"):
        in_child(hang)


@pytest.mark.parametrize("switch", ["auto", "off"])
def test_a_native_reference_respects_the_probe(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetune.runtime.probe import SWITCH, extra_kernels_work

    monkeypatch.setenv(SWITCH, switch)
    assert in_child(kernels_asked_for) is extra_kernels_work()
