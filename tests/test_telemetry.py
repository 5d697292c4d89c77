"""metrics.jsonl says what happened, and a resumed run goes on counting."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.logged import log_steps, logged_run, make_recipe

from edgetune.training import telemetry as module
from edgetune.training.summary import Summary
from edgetune.training.telemetry import Telemetry

DOCS = Path(__file__).resolve().parents[1] / "docs" / "runs.md"


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def test_a_row_holds_what_the_trainer_said_and_what_was_counted(tmp_path: Path, clock: Clock):
    run = logged_run(tmp_path / "run")
    with Telemetry(run, make_recipe()) as telemetry:
        telemetry.count_batch(tokens=30, supervised=10)
        telemetry.count_batch(tokens=10, supervised=2)
        clock.now += 2
        said = {"loss": 2.5, "grad_norm": 1.5, "learning_rate": 1e-4, "entropy": 3.0, "eval_accuracy": 0.5}
        telemetry.log(step=1, epoch=0.123456, values=said)
        telemetry.count_batch(tokens=60, supervised=20)
        clock.now += 1.5
        telemetry.log(step=2, epoch=0.25, values={"loss": 2.0})
        telemetry.log(step=2, epoch=0.25, values={"eval_loss": 1.0})
    first, second, evaluation = run.read_metrics()
    memory = first.pop("peak_memory_bytes")
    assert memory > 2**20
    assert first == {
        "step": 1,
        "epoch": 0.1235,
        "loss": 2.5,
        "grad_norm": 1.5,
        "learning_rate": 1e-4,
        "eval_accuracy": 0.5,
        "tokens": 40,
        "supervised_tokens": 12,
        "seconds": 2.0,
        "tokens_per_second": 20.0,
    }
    assert (second["tokens"], second["seconds"], second["tokens_per_second"]) == (100, 3.5, 40.0)
    assert evaluation["eval_loss"] == 1.0
    assert "tokens_per_second" not in evaluation  # nothing was trained since the row before


def test_a_row_is_on_the_disk_as_soon_as_it_is_logged(tmp_path: Path):
    run = logged_run(tmp_path / "run")
    with Telemetry(run, make_recipe()) as telemetry:
        telemetry.log(step=1, epoch=0.1, values={"loss": 2.0})
        assert [row["loss"] for row in run.read_metrics()] == [2.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_null(tmp_path: Path, value: float):
    run = logged_run(tmp_path / "run")
    with Telemetry(run, make_recipe()) as telemetry:
        telemetry.log(step=1, epoch=0.1, values={"loss": value, "grad_norm": 1.0})
    assert run.read_metrics()[0]["loss"] is None


def test_evaluations_cost_no_training_time(tmp_path: Path, clock: Clock):
    with Telemetry(logged_run(tmp_path / "run"), make_recipe()) as telemetry:
        clock.now += 3
        with telemetry.paused():
            clock.now += 50
            assert telemetry.train_seconds == 3
        clock.now += 4
        telemetry.count_batch(tokens=70, supervised=7)
        assert telemetry.train_seconds == 7
        assert telemetry.tokens_per_second == 10


def test_a_resumed_run_goes_on_counting_where_its_last_row_stopped(tmp_path: Path, clock: Clock):
    run, recipe = logged_run(tmp_path / "run"), make_recipe()
    with Telemetry(run, recipe) as telemetry:
        telemetry.count_batch(tokens=40, supervised=9)
        clock.now += 5
        telemetry.log(step=1, epoch=0.5, values={"loss": 2.0})
        telemetry.count_batch(tokens=1000, supervised=1000)  # of a step that was lost
    clock.now += 1000
    with Telemetry(run, recipe) as telemetry:
        assert (telemetry.train_tokens, telemetry.supervised_tokens, telemetry.train_seconds) == (40, 9, 5)
        telemetry.count_batch(tokens=20, supervised=1)
        clock.now += 2
        telemetry.log(step=2, epoch=1.0, values={"loss": 1.0})
        assert telemetry.tokens_per_second == 10
    assert [(row["tokens"], row["seconds"], row["tokens_per_second"]) for row in run.read_metrics()] == [
        (40, 5.0, 8.0),
        (60, 7.0, 10.0),
    ]


def test_of_several_processes_one_writes(tmp_path: Path):
    run = logged_run(tmp_path / "run")
    with Telemetry(run, make_recipe(trackers=["tensorboard"]), writes=False) as telemetry:
        telemetry.count_batch(tokens=5, supervised=5)
        telemetry.log(step=1, epoch=0.1, values={"loss": 2.0})
    assert not [*run.path.iterdir()]
    assert telemetry.train_tokens == 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the CUDA allocator's peak counts")
def test_the_peak_of_memory_is_that_of_the_training(tmp_path: Path):
    with Telemetry(logged_run(tmp_path / "run"), make_recipe()) as telemetry:
        before = telemetry.peak_memory_bytes
        torch.ones(2**26, dtype=torch.uint8).sum()
        assert telemetry.peak_memory_bytes >= before + 2**25
        # A run that is resumed keeps the peak of its earlier parts.
        telemetry.log(step=1, epoch=0.1, values={"loss": 2.0})
        peak = telemetry.peak_memory_bytes
    time.sleep(0.01)
    with Telemetry(logged_run(tmp_path / "run"), make_recipe()) as telemetry:
        assert telemetry.peak_memory_bytes >= peak


def test_the_documents_name_every_field(tmp_path: Path):
    named = set(re.findall(r"`([a-z0-9_]+)`", DOCS.read_text(encoding="utf-8")))
    run = logged_run(tmp_path / "run")
    log_steps(run, make_recipe(), [3.0, 2.0])
    logged = {key for row in run.read_metrics() for key in row} - {"eval_accuracy"}
    assert logged | {"energy_kwh", "co2_kg"} | Summary.model_fields.keys() <= named
