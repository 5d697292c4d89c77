"""Warnings come where a training went wrong, and hardly ever where it did not. Curves are noisy, as those of small
batches are: every shape is drawn many times."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from support.logged import make_recipe
from support.tiny_tasks import LABELS, PROMPT, save_tiny, write_rows

from edgetune.recipe.load import load_recipe
from edgetune.recipe.schema import Recipe
from edgetune.training.diagnosis import diagnose, diagnose_recipe
from edgetune.training.run import train

DRAWS = 40
VOCABULARY = 49152
Curve = NDArray[np.float64]
Rows = list[dict[str, Any]]


def settling(updates: int, start: float, end: float, time_constants: float) -> Curve:
    """An exponential decay from `start` that would end at `end`, after so many of its time constants."""
    return end + (start - end) * np.exp(-time_constants * np.arange(updates) / updates)


def noisy(curve: Curve, seed: int, spread: float, alike: float = 0.0) -> Curve:
    """Noise that is multiplied, of a standard deviation `spread`; neighbours correlate by `alike`."""
    draws = np.random.default_rng(seed).normal(0, spread, len(curve))
    for place in range(1, len(draws)):
        draws[place] = alike * draws[place - 1] + math.sqrt(1 - alike**2) * draws[place]
    return curve * np.exp(draws)


def rows_of(losses: Curve, *, epochs: float = 1.0, evaluations: dict[int, float] | None = None) -> Rows:
    rows: Rows = []
    for step, loss in enumerate(losses, start=1):
        epoch = epochs * step / len(losses)
        rows.append({"step": step, "epoch": epoch, "loss": float(loss), "grad_norm": 1.0})
        if evaluations and step in evaluations:
            rows.append({"step": step, "epoch": epoch, "eval_loss": evaluations[step]})
    return rows


def how_often(draw: Callable[[int], Rows], recipe: Recipe | None = None, *, choices: int = VOCABULARY) -> Counter[str]:
    """Of all draws, how many show each sign."""
    recipe = recipe or make_recipe()
    return Counter(sign.name for seed in range(DRAWS) for sign in diagnose(draw(seed), recipe, choices=choices))


@pytest.mark.parametrize("updates", [20, 60, 120, 500])
@pytest.mark.parametrize("spread", [0.05, 0.2, 0.4])
@pytest.mark.parametrize(
    "shape",
    [
        lambda updates: settling(updates, 3.0, 1.5, 8),
        lambda updates: settling(updates, 1.9, 1.7, 10),
        lambda updates: np.full(updates, 1.8),
        lambda updates: 1.2 + 1.8 * (1 + np.arange(updates) / 3) ** -1.0,
    ],
    ids=["settled", "hardly fell", "flat", "power law"],
)
def test_healthy_curves_are_left_alone(updates: int, spread: float, shape: Callable[[int], Curve]):
    seen = how_often(lambda seed: rows_of(noisy(shape(updates), seed, spread, alike=0.2)))
    assert sum(seen.values()) <= DRAWS // 10, seen


def test_a_short_run_is_not_judged():
    for losses in ([3.0, 2.0, 1.0], [1.0] * 7 + [9.0] * 8, []):
        assert diagnose(rows_of(np.array(losses)), make_recipe(), choices=VOCABULARY) == []


@pytest.mark.parametrize(("updates", "spread"), [(60, 0.05), (120, 0.1), (500, 0.2)])
@pytest.mark.parametrize("time_constants", [1, 2])
def test_a_loss_that_still_falls_steeply_is_under_trained(updates: int, spread: float, time_constants: float):
    curve = settling(updates, 3.0, 1.0, time_constants)
    seen = how_often(lambda seed: rows_of(noisy(curve, seed, spread), epochs=0.5))
    assert seen["under_trained"] >= 0.85 * DRAWS, seen
    assert seen.keys() == {"under_trained"}


def test_120_steps_at_half_an_epoch_are_told_to_train_longer():
    rows = rows_of(noisy(settling(120, 3.0, 1.0, 1.5), 0, 0.1), epochs=0.48)
    (sign,) = diagnose(rows, make_recipe(max_steps=120), choices=VOCABULARY)
    assert "still falling steeply" in sign.finding
    assert "after 0.48 epochs" in sign.finding
    assert sign.remedy == "raise train.max_steps (now 120), for example to 480"
    (sign,) = diagnose(rows, make_recipe(epochs=0.48, learning_rate=1e-5), choices=VOCABULARY)
    assert sign.remedy == "raise train.epochs (now 0.48) or train.learning_rate (1e-05)"


def test_a_falling_loss_is_no_reason_to_train_longer_once_the_evaluation_rises():
    curve = noisy(settling(120, 3.0, 1.0, 1.5), 0, 0.1)
    assert not diagnose(rows_of(curve, evaluations={40: 1.50, 80: 1.49, 120: 1.50}), make_recipe(), choices=VOCABULARY)


@pytest.mark.parametrize("spread", [0.1, 0.2])
@pytest.mark.parametrize(
    "curve",
    [
        np.concatenate([settling(60, 3.0, 1.5, 6), np.linspace(1.5, 5.0, 60)]),
        np.concatenate([settling(100, 2.0, 1.2, 6), np.full(40, 7.5)]),
        np.concatenate([[2.5], settling(119, 8.0, 6.5, 5)]),
    ],
    ids=["climbs", "breaks out", "jumps at once and never comes back"],
)
def test_a_rising_loss_is_a_matter_of_the_learning_rate(curve: Curve, spread: float):
    seen = how_often(lambda seed: rows_of(noisy(curve, seed, spread)))
    assert seen["loss_rising"] >= 0.9 * DRAWS, seen
    (sign,) = diagnose(rows_of(curve), make_recipe(learning_rate=3e-3, warmup_steps=5), choices=VOCABULARY)
    assert sign.remedy == "lower train.learning_rate (now 0.003) or raise train.warmup_steps (now 5)"


def test_a_single_spike_is_no_rise():
    curve = settling(120, 3.0, 1.5, 8)
    for place in (30, 95, 119):
        spiked = curve.copy()
        spiked[place] = 50.0
        seen = how_often(lambda seed, spiked=spiked: rows_of(noisy(spiked, seed, 0.2)))
        assert sum(seen.values()) <= DRAWS // 10, (place, seen)


@pytest.mark.parametrize(("choices", "spread"), [(VOCABULARY, 0.03), (3, 0.1), (2, 0.1)])
def test_a_loss_at_that_of_guessing_has_learned_nothing(choices: int, spread: float):
    recipe = make_recipe() if choices == VOCABULARY else recipe_with_head()
    curve = np.full(200, math.log(choices))
    seen = how_often(lambda seed: rows_of(noisy(curve, seed, spread)), recipe, choices=choices)
    assert seen["nothing_learned"] >= 0.9 * DRAWS, seen
    learned = noisy(settling(200, math.log(choices), 0.7 * math.log(choices), 6), 0, spread)
    assert not diagnose(rows_of(learned), recipe, choices=choices)


def recipe_with_head() -> Recipe:
    recipe = make_recipe()
    return recipe.model_copy(update={"base": recipe.base.model_copy(update={"head": "classification"})})


def test_what_guessing_means_is_said():
    (sign,) = diagnose(rows_of(np.full(40, 1.1)), recipe_with_head(), choices=3)
    assert "ends at 1.1, and guessing among 3 labels gives 1.1: nothing was learned" in sign.finding
    (sign,) = diagnose(rows_of(np.full(40, 6.2)), make_recipe(), choices=500)
    assert "guessing among 500 tokens gives 6.21" in sign.finding


def test_a_loss_far_above_guessing_is_told_even_when_it_came_back():
    curve = np.concatenate([[5.7], np.full(12, 31.0), settling(60, 20.0, 1.0, 3)])
    seen = how_often(lambda seed: rows_of(noisy(curve, seed, 0.4)), choices=335)
    assert seen["worse_than_guessing"] + seen["loss_rising"] >= 0.9 * DRAWS, seen
    assert "under_trained" not in seen


def test_an_evaluation_that_rises_while_training_falls_is_over_fitting():
    curve = settling(100, 3.0, 0.3, 3)

    def draw(seed: int) -> Rows:
        shift = np.random.default_rng(seed).normal(1, 0.01, 5)
        evaluations = {20 * (n + 1): loss * shift[n] for n, loss in enumerate((1.6, 1.5, 1.6, 1.75, 1.95))}
        return rows_of(noisy(curve, seed, 0.2), epochs=5, evaluations=evaluations)

    assert how_often(draw) == {"over_fitted": DRAWS}
    (sign,) = diagnose(draw(0), make_recipe(method={"type": "lora", "rank": 16, "dropout": 0.0}), choices=VOCABULARY)
    assert "was best at step 40" in sign.finding
    assert "epoch 2 of 5" in sign.finding
    assert sign.remedy == (
        "set train.max_steps to 40, or use more data, or raise method.dropout (now 0) or lower method.rank (now 16)"
    )
    (sign,) = diagnose(draw(0), make_recipe(method={"type": "full"}), choices=VOCABULARY)
    assert sign.remedy.endswith("or train an adapter (method lora) instead of every weight")


def test_an_evaluation_that_wavers_is_not_over_fitting():
    def draw(seed: int) -> Rows:
        shift = np.random.default_rng(seed).normal(1, 0.008, 6)
        evaluations = {20 * (n + 1): 1.7 * shift[n] for n in range(6)}
        return rows_of(noisy(settling(120, 3.0, 1.6, 12), seed, 0.2), epochs=3, evaluations=evaluations)

    assert sum(how_often(draw).values()) <= DRAWS // 10


def test_a_training_loss_of_nothing_without_an_evaluation_may_be_memory():
    rows = rows_of(settling(100, 3.0, 0.0, 12), epochs=6)
    (sign,) = diagnose(rows, make_recipe(), choices=VOCABULARY)
    assert (sign.name, sign.remedy) == (
        "memorized",
        "give data.eval rows that are not in data.train, and set train.eval_every",
    )


def test_gradients_that_grow_tenfold_are_told():
    rows = rows_of(noisy(settling(100, 3.0, 1.5, 8), 0, 0.1))
    for row in rows:
        row["grad_norm"] = math.exp(row["step"] / 25)
    (sign,) = diagnose(rows, make_recipe(), choices=VOCABULARY)
    assert sign.name == "gradients_exploding"
    assert "clipped to train.max_grad_norm 1" in sign.finding


def test_an_evaluation_that_is_no_number_is_told():
    rows = rows_of(noisy(settling(100, 3.0, 1.5, 8), 0, 0.1), evaluations={50: 1.6, 100: math.nan})
    rows[-1]["eval_loss"] = None  # as metrics.jsonl has it
    (sign,) = diagnose(rows, make_recipe(), choices=VOCABULARY)
    assert (sign.name, sign.finding) == (
        "evaluation_not_finite",
        "the evaluation loss after step 100 is not a finite number",
    )


@pytest.mark.parametrize(
    ("settings", "sign"),
    [
        ({"max_steps": 40, "learning_rate": 2e-4, "schedule": "constant"}, "under_trained"),
        ({"max_steps": 60, "learning_rate": 1.0, "schedule": "constant"}, "worse_than_guessing"),
        ({"max_steps": 24, "learning_rate": 1e-8}, "nothing_learned"),
    ],
)
def test_a_real_training_gone_wrong_is_told(tmp_path: Path, settings: dict[str, Any], sign: str):
    save_tiny("LlamaForCausalLM", tmp_path / "llama")
    write_rows(tmp_path / "rows.jsonl")
    values = {
        "name": "sick",
        "task": "classify",
        "base": {"model": str(tmp_path / "llama"), "dtype": "float32"},
        "data": {
            "train": [{"source": "rows.jsonl", "format": "text-label"}],
            "eval": [{"source": "rows.jsonl", "format": "text-label"}],
            "labels": list(LABELS),
            "prompt": PROMPT,
        },
        "method": {"type": "full"},
        "train": {"batch_size": 4, **settings},
    }
    (tmp_path / "sick.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    summary = train(load_recipe(str(tmp_path / "sick.yaml")), tmp_path / "run")
    assert [warning.name for warning in summary.warnings] == [sign]
    assert summary.warnings[0].remedy in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("base", "settings", "processes", "warned"),
    [
        ({"quantize": "nf4"}, {"batch_size": 1}, 1, True),
        ({"quantize": "nf4"}, {"batch_size": 1, "accumulate": 4}, 1, False),
        ({"quantize": "nf4"}, {"batch_size": 4}, 1, False),
        ({"quantize": "nf4"}, {"batch_size": 1}, 2, False),
        ({"quantize": "none"}, {"batch_size": 1}, 1, False),
    ],
)
def test_a_batch_of_one_on_nf4_is_told_before_training(base: dict, settings: dict, processes: int, warned: bool):
    signs = diagnose_recipe(make_recipe(base=base, **settings), processes=processes)
    assert [sign.name for sign in signs] == (["nf4_batch_of_one"] if warned else [])
    assert not warned or str(signs[0]).endswith(
        "set train.accumulate to 4 or more (no more memory), or raise train.batch_size"
    )
