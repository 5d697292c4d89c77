"""The command line as a whole: quick to start, JSON alone on stdout, errors in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "llama_cpp", "peft", "trl", "matplotlib", "sklearn", "scipy")


def test_help_loads_nothing_heavy(run_python):
    program = (
        "import sys; sys.argv = ['edgetune', '--help']\n"
        "from edgetune.cli.app import main\n"
        "try: main()\n"
        f"except SystemExit: print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert run_python(program).endswith("[]")


def test_the_module_runs_like_the_command():
    done = subprocess.run([sys.executable, "-m", "edgetune", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("edgetune 0.")


def test_an_error_is_one_line_with_its_exit_code(edgetune_command):
    seen = edgetune_command("train", "dmo")
    assert seen.exit_code == 2
    assert seen.stdout == ""
    assert seen.stderr.count("\n") == 1
    assert "did you mean demo?" in seen.stderr


def test_with_json_an_error_is_a_document_too(edgetune_command):
    seen = edgetune_command("train", "dmo", "--json")
    assert json.loads(seen.stdout)["exit_code"] == 2


def test_an_unknown_option_is_a_usage_error(edgetune_command):
    assert edgetune_command("train", "demo", "--epochs", "3").exit_code == 2


def test_recipes_lists_what_ships(edgetune_command):
    seen = edgetune_command("recipes")
    assert seen.exit_code == 0
    assert "llama-3.2-1b-qlora-finetome" in seen.stdout
    assert {"name": "demo"}.items() <= json.loads(edgetune_command("recipes", "--json").stdout)[0].items()


def test_recipes_prints_one_as_it_is(edgetune_command):
    assert edgetune_command("recipes", "demo").stdout.startswith("# edgetune train demo\n")


def test_a_missing_extra_names_the_install_command(edgetune_command, monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peft", None)
    seen = edgetune_command("train", "demo", "--out", tmp_path / "run")
    assert seen.exit_code == 5
    assert 'pip install "edgetune[train]"' in seen.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_embedded_model_names_the_install_command(edgetune_command, tmp_path):
    seen = edgetune_command("train", "demo", "-s", "base.model=package:no-such-model", "--out", tmp_path / "run")
    assert seen.exit_code == 5
    assert "pip install" in seen.stderr


def test_every_part_imports_where_posix_is_missing(run_python) -> None:
    """Windows has none of these modules, nor the signal of a closed terminal."""
    hidden = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
    files = (Path(__file__).parents[1] / "edgetune" / "api").glob("[!_]*.py")
    needed = ["cli.app", "runtime.model", *(f"api.{file.stem}" for file in files), "training.run", "judging.run"]
    lines = [
        "import filelock, importlib, signal, sys",  # filelock finds out by itself which locks there are
        f"sys.modules.update(dict.fromkeys({hidden}))",
        "del signal.SIGHUP",
        f"for name in {needed}: importlib.import_module('edgetune.' + name)",
        "print('fcntl' if sys.modules['fcntl'] else 'done')",
    ]
    assert run_python("\n".join(lines)) == "done"
