"""`edgetune merge` and `edgetune export` on the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("torch")


def test_export_names_its_file_after_source_and_preset(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgetune_command
) -> None:
    monkeypatch.chdir(tmp_path)
    done = edgetune_command("export", tiny_llama, "--quant", "Q8_0", "--json")
    report = json.loads(done.stdout)
    assert done.exit_code == 0
    assert Path(report["out"]) == Path("tiny-llama-q8_0.gguf")
    assert report["bytes"] == (tmp_path / "tiny-llama-q8_0.gguf").stat().st_size
    assert report["types"]["Q8_0"] == 15


def test_export_tells_what_to_type_next(tiny_llama: Path, tmp_path: Path, edgetune_command) -> None:
    out = tmp_path / "model.gguf"
    done = edgetune_command("export", tiny_llama, "--quant", "f16", "--out", out)
    assert done.exit_code == 0
    assert f"edgetune chat {out}" in done.stdout


def test_merge_writes_a_folder_that_export_takes(tiny_llama: Path, tmp_path: Path, edgetune_command) -> None:
    merged = edgetune_command("merge", tiny_llama, "--out", tmp_path / "merged", "--json")
    assert json.loads(merged.stdout)["tensors"] == 20
    done = edgetune_command("export", tmp_path / "merged", "--quant", "bf16", "--out", tmp_path / "m.gguf", "--json")
    assert json.loads(done.stdout)["preset"] == "bf16"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "no/such/model/anywhere"], "no such model folder"),
        (["export", "MODEL", "--quant", "q4"], "q4_"),
        (["export", "MODEL", "--base", "MODEL"], "whole model"),
        (["merge", "MODEL", "--out", "MODEL"], "exists already"),
    ],
)
def test_bad_input_ends_with_one_line_and_exit_code_2(
    arguments: list[str], says: str, tiny_llama: Path, edgetune_command
) -> None:
    done = edgetune_command(*[str(tiny_llama) if word == "MODEL" else word for word in arguments])
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tiny_llama: Path, tmp_path: Path, edgetune_command) -> None:
    tmp_path.chmod(0o500)
    done = edgetune_command("export", tiny_llama, "--out", tmp_path / "model.gguf")
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


def test_the_commands_load_no_torch_before_they_run(run_python) -> None:
    seen = run_python(
        "import sys, edgetune.cli.merge, edgetune.cli.export\n"
        "print([name for name in ('torch', 'transformers', 'llama_cpp', 'peft') if name in sys.modules])"
    )
    assert seen == "[]"
