"""A run's picture and model card show what its rows and its summary say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.image import imread
from support.logged import make_recipe

from edgetune.plots import can_draw
from edgetune.recipe.load import dump_recipe
from edgetune.training.card import model_card
from edgetune.training.diagnosis import Diagnosis
from edgetune.training.plot import EVALUATION, SMOOTH, plot_training, smooth
from edgetune.training.summary import Summary

SUMMARY = Summary(
    name="logged",
    task="classify",
    method="lora",
    base="someone/base",
    backend="transformers",
    trainable_parameters=458_752,
    total_parameters=3_213_208_576,
    trainable_percent=0.014277,
    steps=120,
    epochs=0.48,
    train_tokens=123_456,
    supervised_tokens=2_345,
    train_seconds=61.5,
    seconds_per_epoch=128.125,
    tokens_per_second=2007.4,
    peak_memory_bytes=3 * 2**30,
    energy_kwh=0.00123,
    co2_kg=0.00058,
    device="cpu (x86_64)",
    dtype="float32",
    final_train_loss=0.51234,
    eval_loss=0.6,
    evaluation={
        "accuracy": 0.75,
        "questions": 1200,
        "labels": ["up", "down"],
        "per_label": {"up": {"precision": 0.8, "f1": 0.7}, "down": {"precision": 0.5, "f1": 0.6}},
        "confusion": [[70, 30], [20, 80]],
    },
    warnings=[Diagnosis(name="under_trained", finding="it was still falling", remedy="raise train.max_steps")],
    seed=7,
    versions={"torch": "2"},
)


def rows_of(losses: list[float], *, evaluate_at: tuple[int, ...] = (), **metrics: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step, loss in enumerate(losses, start=1):
        rows.append({"step": step, "loss": loss, "grad_norm": 1 / step, "learning_rate": 1e-4 / step})
        if step in evaluate_at:
            rows.append({"step": step, "eval_loss": loss + 0.2, **metrics})
    return rows


def noisy(count: int) -> list[float]:
    draws = np.random.default_rng(0).normal(0, 0.3, count)
    return [float((1 + 2 * math.exp(-5 * n / count)) * math.exp(draw)) for n, draw in enumerate(draws)]


def share_of(color: str, image: np.ndarray) -> float:
    wanted = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return float((np.abs(image[:, :, :3] - wanted).max(axis=2) < 0.1).mean())


@pytest.mark.parametrize("count", [1, 2, 25, 26, 1000])
def test_a_curve_of_any_length_is_visible(tmp_path: Path, count: int):
    plot_training(rows_of(noisy(count)), tmp_path / "loss.png", title="a run")
    image = imread(tmp_path / "loss.png")
    assert share_of(SMOOTH, image) > (1e-5 if count == 1 else 1e-3)
    assert share_of(EVALUATION, image) == 0


def test_evaluations_and_their_metrics_have_their_places(tmp_path: Path):
    plot_training(rows_of(noisy(60)), tmp_path / "plain.png", title="a run")
    evaluated = rows_of(noisy(60), evaluate_at=(20, 40, 60), eval_accuracy=0.5, eval_f1=0.4)
    plot_training(evaluated, tmp_path / "evaluated.png", title="a run")
    plain, more = imread(tmp_path / "plain.png"), imread(tmp_path / "evaluated.png")
    assert more.shape[0] > plain.shape[0]
    assert share_of(EVALUATION, more) > 1e-3


def test_values_that_were_not_finite_leave_gaps(tmp_path: Path):
    rows = rows_of([2.0, 1.5, 1.0], evaluate_at=(3,))
    rows[1]["loss"] = rows[1]["grad_norm"] = rows[3]["eval_loss"] = None
    plot_training(rows, tmp_path / "loss.png", title="a run")
    assert share_of(SMOOTH, imread(tmp_path / "loss.png")) > 1e-3


def test_smoothing_lessens_noise_and_keeps_the_course():
    values = np.array(noisy(1000))
    smoothed = np.array(smooth(list(values)))
    course = 1 + 2 * np.exp(-5 * np.arange(1000) / 1000)
    assert np.std(np.log(smoothed / course)) < 0.3 * np.std(np.log(values / course))
    assert smooth([3.0] * 200) == pytest.approx([3.0] * 200)
    assert smooth([3.0, 1.0, 2.0]) == [3.0, 1.0, 2.0]  # too few to smooth
    assert smoothed[0] == values[0]


def test_a_picture_replaces_the_one_before(tmp_path: Path):
    target = tmp_path / "plots" / "loss.png"
    for losses in ([1.0, 2.0], [2.0, 1.0]):
        plot_training(rows_of(losses), target, title="a run")
    assert [*target.parent.iterdir()] == [target]


def test_without_matplotlib_a_card_shows_no_plot_and_a_note_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("edgetune.plots.find_spec", lambda name: None)
    assert not can_draw("plots/loss.png")
    assert 'plots/loss.png is left out, because it needs matplotlib; to get it, run: pip install "edgetune[plots]"' in (
        capsys.readouterr().err
    )
    assert "plots/loss.png" in model_card(make_recipe(), SUMMARY)
    assert "plots/loss.png" not in model_card(make_recipe(), SUMMARY, plotted=False)


def read_card(card: str) -> tuple[dict[str, Any], str]:
    _, header, page = card.split("---\n", 2)
    return yaml.safe_load(header), page


def test_every_figure_of_the_card_is_the_summarys():
    recipe = make_recipe(seed=7)
    header, page = read_card(model_card(recipe, SUMMARY))
    assert header == {
        "base_model": "someone/base",
        "library_name": "peft",
        "tags": ["edgetune", "lora", "classify"],
    }
    for line in (
        "# logged",
        "An adapter for someone/base.",
        "| Trainable parameters | 458,752 of 3,213,208,576 (0.0143 %) |",
        "| Steps, epochs | 120, 0.48 |",
        "| Tokens (supervised) | 123,456 (2,345) |",
        "| Final training loss | 0.5123 (evaluation 0.6000) |",
        "| Time | 62 s, 2007 tokens/s |",
        "| Peak memory | 3.00 GiB on cpu (x86_64) |",
        "| Energy | 0.00123 kWh, 0.58 g CO₂ (codecarbon) |",
        "| Seed | 7 |",
        "- it was still falling; raise train.max_steps.",
        "| accuracy | questions |",
        "| 0.75 | 1,200 |",
        "| up | 0.8 | 0.7 |",
        "| up | 70 | 30 |",
        "| down | 20 | 80 |",
    ):
        assert line in page.splitlines(), line
    assert "PEFT loads the `adapter/` in it" in page
    assert dump_recipe(recipe) in page


def test_a_card_holds_nothing_that_was_not_measured():
    plain = SUMMARY.model_copy(update={"energy_kwh": None, "co2_kg": None, "evaluation": None, "warnings": []})
    page = model_card(make_recipe(), plain.model_copy(update={"eval_loss": None}))
    for absent in ("Energy", "## Evaluation", "## Warnings", "(evaluation", "None"):
        assert absent not in page.replace(dump_recipe(make_recipe()), "")


def test_a_model_of_which_every_weight_was_trained_is_no_adapter():
    header, page = read_card(model_card(make_recipe(method={"type": "full"}), SUMMARY))
    assert header["library_name"] == "transformers"
    assert "someone/base, every weight trained." in page
    assert "Transformers loads the `model/` in it" in page
    assert "PEFT" not in page


def test_a_label_with_a_bar_stays_in_its_cell():
    labelled = {"labels": ["a|b", "c"], "confusion": [[1, 0], [0, 1]]}
    page = model_card(make_recipe(), SUMMARY.model_copy(update={"evaluation": labelled}))
    assert "| a\\|b | 1 | 0 |" in page.splitlines()
