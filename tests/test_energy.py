"""Energy and CO₂ are codecarbon's, grow while a run trains, and go on in a resumed one."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.logged import log_steps, logged_run, make_recipe

from edgetune.errors import MissingComponent
from edgetune.training import trackers
from edgetune.training.telemetry import Telemetry
from edgetune.training.trackers import check_trackers


def test_the_energy_of_a_run_grows_over_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("codecarbon", reason="codecarbon is not installed")
    run, recipe = logged_run(tmp_path / "run"), make_recipe(energy=True)
    used = []
    for step in (1, 2):
        with Telemetry(run, recipe) as telemetry:
            sum(n * n for n in range(10**6))
            meter = telemetry.measure_energy()
            assert meter is not None
            telemetry.log(step=step, epoch=0.1, values={"loss": 1.0})
            used.append((meter.energy_kwh, meter.co2_kg))
    assert 0 < used[0][0] < used[1][0] < 1
    assert 0 < used[0][1] < used[1][1] < 1
    assert [(row["energy_kwh"], row["co2_kg"]) for row in run.read_metrics()] == used
    assert capsys.readouterr().out == ""
    assert not [*Path.cwd().glob("emissions*")]


def test_a_recipe_that_asks_for_no_energy_has_none(tmp_path: Path):
    run = logged_run(tmp_path / "run")
    log_steps(run, make_recipe(), [1.0])
    assert not any("energy_kwh" in row for row in run.read_metrics())
    with Telemetry(run, make_recipe()) as telemetry:
        assert telemetry.measure_energy() is None


def test_a_missing_meter_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingComponent, match=r"codecarbon, which is not installed; run: pip install codecarbon"):
        check_trackers(make_recipe(energy=True))
