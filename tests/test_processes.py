"""Several processes train as one with their joint batch would, and end together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.children import free_port, rows, train_in_children

from edgetune.errors import OutputError, UsageError
from edgetune.recipe.load import load_recipe
from edgetune.training import processes
from edgetune.training.batches import Batches
from edgetune.training.run import train
from edgetune.training.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("no_plots")

TEXTS = ["good", "bad news", "what a long and winding day", "fine by me", "never again", "so so", "no, thanks"]


@pytest.fixture
def write_recipe(tmp_path: Path, tiny_llama: Path):
    """Writes a small classification recipe on the tiny Llama; nested values merge."""
    data = [{"text": text, "label": ("up", "down")[n % 2]} for n, text in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, data)), encoding="utf-8")
    (tmp_path / "few.jsonl").write_text("\n".join(map(json.dumps, data[:3])), encoding="utf-8")

    def write(name: str = "tiny", **sections: dict[str, object]) -> Path:
        values = {
            "name": name,
            "task": "classify",
            "base": {"model": str(tiny_llama), "dtype": "float32"},
            "data": {
                "train": [{"source": "rows.jsonl", "format": "text-label"}],
                "eval": [{"source": "few.jsonl", "format": "text-label"}],
                "labels": ["up", "down"],
                "prompt": "Up or down? {text}",
            },
            "method": {"type": "lora", "rank": 4, "alpha": 8},
            # SGD, because Adam turns the sign of a vanishing gradient into a whole step.
            "train": {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.5, "eval_every": 1},
        }
        for section, changes in sections.items():
            values[section] = {**values[section], **changes}
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        return file

    return write


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def assert_same_course(run: Path, reference: Path) -> None:
    """Both runs logged the same and learned the same, but for the order of additions."""
    assert [row.keys() for row in rows(run)] == [row.keys() for row in rows(reference)]
    for row, expected in zip(rows(run), rows(reference), strict=True):
        for key, value in expected.items():
            assert row[key] == pytest.approx(value, rel=1e-4), (key, row, expected)
    for name, tensor in adapter(reference).items():
        torch.testing.assert_close(adapter(run)[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("quantize", "ways"), [("none", ("ddp", "fsdp")), ("nf4", ("fsdp",))])
def test_two_processes_have_the_course_of_one_with_their_joint_batch(
    write_recipe, tmp_path: Path, quantize: str, ways: tuple[str, ...]
):
    # Seven examples: the second update of an epoch is short, and in its last step one process has nothing to do.
    base = {"quantize": quantize}
    one = write_recipe("one", base=base, train={"batch_size": 2, "accumulate": 2})
    train(load_recipe(str(one)), tmp_path / "one")
    for parallel in ways:
        two = write_recipe("two", base=base, train={"batch_size": 1, "accumulate": 2, "parallel": parallel})
        assert train_in_children(two, tmp_path / parallel, processes=2) == [0, 0], parallel
        assert_same_course(tmp_path / parallel, tmp_path / "one")
        summary, expected = (json.loads((tmp_path / run / "summary.json").read_text()) for run in (parallel, "one"))
        for key in ("steps", "epochs", "train_tokens", "supervised_tokens", "trainable_parameters", "total_parameters"):
            assert summary[key] == expected[key], (parallel, key)


def test_fsdp_leaves_each_process_its_part_of_the_frozen_layers(tiny_llama: Path):
    start_method = "forkserver"  # which has imported the libraries already
    torch.multiprocessing.start_processes(
        _assert_spread, args=(2, free_port(), tiny_llama), nprocs=2, start_method=start_method
    )


def _assert_spread(rank: int, count: int, port: int, base: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from torch.distributed.tensor import DTensor
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from edgetune.training.sharding import shard_frozen_layers

    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=count)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=config)
    packed = {name: weight.clone() for name, weight in model.named_parameters() if weight.dtype == torch.uint8}
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    shard_frozen_layers(adapted, torch.device("cpu"))
    for name, whole in packed.items():
        path, _, attribute = name.rpartition(".")
        part = getattr(adapted.get_base_model().get_submodule(path).base_layer, attribute)
        assert isinstance(part, DTensor)
        assert torch.equal(part.to_local(), whole.chunk(count)[rank])
    torch.distributed.destroy_process_group()


def test_grouping_by_length_gives_two_processes_the_same_steps_too(write_recipe, tmp_path: Path):
    one = write_recipe("one", train={"batch_size": 2, "group_by_length": True})
    train(load_recipe(str(one)), tmp_path / "one")
    two = write_recipe("two", train={"batch_size": 1, "group_by_length": True})
    assert train_in_children(two, tmp_path / "two", processes=2) == [0, 0]
    assert_same_course(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("examples", [1, 7, 8, 9])
@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (2, 2), (4, 1), (3, 2)])
def test_every_example_is_seen_once_and_in_the_same_step(examples: int, count: int, batch_size: int):
    def parts(count: int, batch_size: int) -> list[list[list[int]]]:
        shards = [
            Batches([5] * examples, batch_size, rank=rank, processes=count, shuffle=True, seed=3)
            for rank in range(count)
        ]
        for shard in shards:
            shard.set_epoch(1)
        assert all(len(list(shard)) == len(shard) for shard in shards)
        return [list(step) for step in zip(*shards, strict=True)]

    def steps(count: int, batch_size: int) -> list[list[int]]:
        return [[n for part in step for n in part if n < examples] for step in parts(count, batch_size)]

    assert steps(count, batch_size) == steps(1, count * batch_size)
    assert sorted(n for step in steps(count, batch_size) for n in step) == list(range(examples))
    # Work is divided evenly, and who has nothing to do has one filler.
    for step in parts(count, batch_size):
        sizes = [len([n for n in part if n < examples]) for part in step]
        assert max(sizes) - min(sizes) <= 1
        assert all(part == [examples] for part, size in zip(step, sizes, strict=True) if size == 0)


def test_the_order_is_new_in_every_epoch_and_the_same_after_a_resume():
    batches = Batches([5] * 20, 4, rank=0, processes=1, shuffle=True, seed=0)
    first = list(batches)
    batches.set_epoch(1)
    second = list(batches)
    assert first != second
    torch.rand(3)  # another draw in between changes nothing
    assert list(batches) == second


def edgetune(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgetune", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def test_ctrl_c_ends_all_processes_after_a_checkpoint_and_resume_goes_on(write_recipe, tmp_path: Path):
    recipe = write_recipe(
        "long", method={"dropout": 0.2}, train={"epochs": 1, "max_steps": 40, "optimizer": "adamw", "eval_every": 50}
    )
    assert train_in_children(recipe, tmp_path / "whole", processes=2) == [0, 0]
    run = tmp_path / "parts"
    command = edgetune("train", recipe, "--out", run, "--processes", 2)
    while command.poll() is None and not ((run / "metrics.jsonl").exists() and len(rows(run)) >= 3):
        time.sleep(0.01)
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=60)
    assert command.returncode == 130, said
    *_, last = said.strip().splitlines()
    assert re.fullmatch(
        rf"error: {run}: interrupted after step \d+ of 40; a checkpoint is saved; continue with: edgetune train "
        rf"{run}/recipe.yaml --out {run} --resume --processes 2",
        last,
    )
    assert said.count("error:") == 1
    assert "Traceback" not in said
    checkpoint = RunDirectory(run).last_checkpoint()
    assert checkpoint is not None
    assert {file.name for file in checkpoint.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}

    with pytest.raises(UsageError, match=r"trained by 2 processes.*resume with --processes 2"):
        train(load_recipe(str(recipe)), run, resume=True)
    assert train_in_children(recipe, run, processes=2, resume=True) == [0, 0]
    assert rows(run) == rows(tmp_path / "whole")
    for name, tensor in adapter(tmp_path / "whole").items():
        assert torch.equal(adapter(run)[name], tensor), name


def test_a_failure_in_any_process_is_one_line_and_the_right_exit_code(write_recipe, tmp_path: Path):
    recipe = write_recipe("spoilt", data={"max_length": 8})
    command = edgetune("train", recipe, "--out", tmp_path / "run", "--processes", 2, "--json")
    printed, said = command.communicate(timeout=120)
    assert command.returncode == 2, said
    assert [line for line in said.splitlines() if "error" in line or "Traceback" in line] == [
        line for line in said.splitlines() if line.startswith("error: all 7 examples are longer than max_length")
    ]
    assert json.loads(printed)["exit_code"] == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ended", [SystemExit(1), OutputError("cannot be written", where="standard output")])
def test_a_first_process_that_cannot_show_its_result_ends_the_launcher_in_the_same_way(
    ended: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("EDGETUNE_FAILURES", str(tmp_path))
    with pytest.raises(SystemExit) as left, processes.failures_reported():
        raise ended
    with pytest.raises(type(ended), match=str(ended)):
        processes._raise_failure(tmp_path, 2, {0: left.value.code, 1: 0})


@pytest.mark.parametrize("count", [0, -3])
def test_a_number_of_processes_that_cannot_be_is_refused(edgetune_command, write_recipe, tmp_path: Path, count: int):
    seen = edgetune_command("train", write_recipe(), "--out", tmp_path / "run", "--processes", count)
    assert seen.exit_code == 2
    assert f"--processes: {count} processes cannot train" in seen.stderr


def test_more_processes_than_cores_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert processes.must_launch(4)
    with pytest.raises(UsageError, match=r"5 processes were asked for, and this machine has 4 cores"):
        processes.must_launch(5)


def test_what_cannot_be_written_or_resumed_is_refused_before_processes_start(
    edgetune_command, write_recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(processes, "launch", lambda *_: pytest.fail("no process must be started"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine", encoding="utf-8")
    command = ("train", write_recipe(), "--out", tmp_path / "run", "--processes", 2)
    for option, expected in (
        ((), "exists already"),
        (("--force",), "is not a run directory"),
        (("--resume",), "no run to"),
    ):
        seen = edgetune_command(*command, *option)
        assert seen.exit_code == 2
        assert expected in seen.stderr


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"4 processes were asked for, and this machine has 2 GPUs"):
        processes.join()


def test_under_torchrun_the_number_of_processes_is_torchruns(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert not processes.must_launch(2)
    with pytest.raises(UsageError, match=r"one of 2 processes that were started already"):
        processes.must_launch(4)


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "physical_cores", lambda: 8)
    assert [processes.threads_per_process(count) for count in (1, 2, 3, 16)] == [8, 4, 2, 1]


def test_a_training_uses_the_physical_cores_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "physical_cores", lambda: 3)
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    processes.join()
    assert torch.get_num_threads() == before
    monkeypatch.delenv("OMP_NUM_THREADS")
    processes.join()
    used = torch.get_num_threads()
    torch.set_num_threads(before)
    assert used == 3


def test_only_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from edgetune import console, events
    from edgetune.errors import DataError

    monkeypatch.setenv("RANK", "1")
    events.note("loading")
    events.warn("slow")
    console.result("done")
    with events.progress("training", 3, "steps") as progress:
        progress.advance(3)
    assert capsys.readouterr() == ("", "")
    console.error(DataError("broken"))
    assert capsys.readouterr().err == "process 1: error: broken\n"
