"""Sources become two sides: label maps, caps, weights, holdout and balance, each drawn by a seed of its own."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hub_rows import ROWS as HUB_ROW_COUNT
from support.hub_rows import local_sources, write_hub_rows

from edgetune.data.balance import balance, class_weights, weigh
from edgetune.data.draw import apportion, draw, repeat, shuffled
from edgetune.data.example import Example, Message
from edgetune.data.holdout import hold_out
from edgetune.data.identity import normalize_text
from edgetune.data.load import LoadedData, load_data
from edgetune.errors import DataError, RecipeError
from edgetune.recipe.data import Data, DataSource
from edgetune.recipe.load import load_recipe, shipped_recipes, study_of

LABELS = ["good", "bad"]


def write(file: Path, labels: list[str], texts: list[str] | None = None) -> Path:
    texts = texts or [f"{file.stem} number {number}" for number in range(len(labels))]
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def source(file: Path, **options: Any) -> DataSource:
    return DataSource(source=str(file), format="text-label", **options)


def load(*train: DataSource, **options: Any) -> LoadedData:
    return load_data(Data(train=list(train), labels=LABELS, prompt="{text}?", **options), "classify")


def lines(examples: tuple[Example, ...]) -> list[str]:
    """file:line of each."""
    return [Path(example.where).name for example in examples]


def example(text: str, label: str | None, number: int) -> Example:
    return Example((Message("user", text), Message("assistant", label or "-")), f"a.jsonl:{number}", label)


@pytest.fixture
def hundred(tmp_path: Path) -> Path:
    return write(tmp_path / "hundred.jsonl", ["good", "bad", "bad", "bad"] * 25)


def test_a_cap_takes_different_rows_in_their_order(hundred: Path) -> None:
    drawn = [int(line.split(":")[1]) for line in lines(load(source(hundred, cap=30)).train)]
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 30
    assert drawn != list(range(1, 31))


def test_a_cap_above_the_number_of_rows_takes_all(hundred: Path) -> None:
    assert len(load(source(hundred, cap=101)).train) == 100


@pytest.mark.parametrize(("weight", "times"), [(0.5, {1: 50}), (2.5, {2: 50, 3: 50}), (3, {3: 100}), (0.29, {1: 29})])
def test_a_weight_repeats_rows_evenly(hundred: Path, weight: float, times: dict[int, int]) -> None:
    seen = Counter(lines(load(source(hundred, weight=weight)).train))
    assert Counter(seen.values()) == times


def test_every_step_is_counted(tmp_path: Path) -> None:
    rows = write(tmp_path / "stars.jsonl", ["1", "2", "3", "5"] * 10)
    maps = {"1": "bad", "2": "bad", "3": None, "5": "good"}
    loaded = load(source(rows, labels=maps, cap=20, weight=1.5))
    (counts,) = loaded.train_sources
    assert (counts.read, counts.labelled, counts.capped, counts.weighted) == (40, 30, 20, 30)
    assert len(loaded.train) == loaded.unbalanced == 30
    assert not any(example.messages[0].content.endswith("number 2?") for example in loaded.train)


def test_draws_do_not_move_each_other(hundred: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", LABELS * 20)
    alone = lines(load(source(hundred, cap=30, weight=1.5)).train)
    for more in (source(other), source(other, cap=7, weight=0.3)):
        for order in ((source(hundred, cap=30, weight=1.5), more), (more, source(hundred, cap=30, weight=1.5))):
            together = lines(load(*order).train)
            assert [line for line in together if line.startswith("hundred")] == alone


def test_draws_are_the_same_wherever_the_files_lie(hundred: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    copied = write(tmp_path / "elsewhere" / hundred.name, ["good", "bad", "bad", "bad"] * 25)
    settings: dict[str, Any] = {"holdout": 0.2, "balance": "oversample"}
    here, there = load(source(hundred, cap=60), **settings), load(source(copied, cap=60), **settings)
    assert (lines(here.train), lines(here.evaluation)) == (lines(there.train), lines(there.evaluation))


def test_another_data_seed_draws_others(hundred: Path) -> None:
    first, second = (load(source(hundred, cap=50), holdout=10, seed=seed) for seed in (0, 1))
    assert set(lines(first.train)) != set(lines(second.train))
    assert set(lines(first.evaluation)) != set(lines(second.evaluation))


def test_a_draw_is_the_same_on_every_machine() -> None:
    assert draw(20, 5, "0 cap a.jsonl None train") == [7, 8, 11, 14, 16]
    assert shuffled(6, "0 holdout good") == [0, 1, 4, 3, 5, 2]


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 400))
def test_repeating_is_as_even_as_can_be(count: int, hundredths: int) -> None:
    places = repeat(count, hundredths / 100, "seed")
    times = Counter(places)
    assert places == sorted(places)
    assert len(places) == round(count * hundredths / 100) or count * hundredths % 100 == 50
    assert max(times.values(), default=0) - min((times[place] for place in range(count)), default=0) <= 1


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.data())
def test_shares_add_up_and_are_in_proportion(sizes: list[int], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, sum(sizes)))
    shares = apportion(wanted, sizes)
    assert sum(shares) == wanted
    for share, size in zip(shares, sizes, strict=True):
        assert abs(share - wanted * size / sum(sizes)) < 1
        assert share <= size


ROWS = st.lists(st.tuples(st.sampled_from(["a", "b", "c d", "C, d!", "e", "f", "g", ""]), st.sampled_from(LABELS)))


@settings(deadline=None)
@given(ROWS, st.floats(0.05, 0.95), st.integers(0, 5))
def test_no_text_is_on_both_sides_of_a_holdout(rows: list[tuple[str, str]], share: float, seed: int) -> None:
    examples = [example(text, label, number) for number, (text, label) in enumerate(rows)]
    try:
        train, held = hold_out([*examples, *examples[::2]], share, seed)
    except DataError:
        return
    texts = [{normalize_text(each.messages[0].content) for each in side} for side in (train, held)]
    assert not texts[0] & texts[1]
    assert {each.where for each in train} | {each.where for each in held} == {each.where for each in examples}
    assert len({each.where for each in held}) == len(held) <= round(len(examples) * share)


def test_texts_that_are_nearly_the_same_are_held_out_together() -> None:
    twenty = [f"w{number}" for number in range(20)]
    texts = [" ".join([*twenty[:10], f"x{number}", *twenty[11:]]) for number in range(4)]
    examples = [example(text, "good", number) for number, text in enumerate([*texts, *"abcdefgh"])]
    for seed in range(20):
        _, held = hold_out(examples, 6, seed)
        assert sum(each.messages[0].content in texts for each in held) in (0, 4)


def test_of_too_many_texts_only_the_same_ones_are_kept_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune.data.holdout.COMPARED_CHARACTERS", 10)
    long = " ".join(f"w{number}" for number in range(20))
    texts = [long, f"{long}!", f"{long} x", *"abcdefgh"]
    examples = [example(text, "good", number) for number, text in enumerate(texts)]
    sides = [{each.messages[0].content for each in hold_out(examples, 5, seed)[1]} for seed in range(20)]
    assert {(texts[0] in side) == (texts[1] in side) for side in sides} == {True}
    assert {(texts[0] in side) == (texts[2] in side) for side in sides} == {True, False}


@settings(deadline=None)
@given(st.integers(4, 40), st.integers(4, 40), st.integers(0, 5))
def test_a_holdout_has_every_label_in_proportion(good: int, bad: int, seed: int) -> None:
    labels = ["good"] * good + ["bad"] * bad
    examples = [example(f"text {number}", label, number) for number, label in enumerate(labels)]
    train, held = hold_out(examples, 0.25, seed)
    assert len(held) == round(len(examples) * 0.25)
    assert abs(sum(each.label == "good" for each in held) - good / 4) < 1
    assert [each for each in examples if each in held] == held
    assert [each for each in examples if each not in held] == train


def test_a_holdout_may_be_a_number(hundred: Path) -> None:
    loaded = load(source(hundred), holdout=8)
    assert (len(loaded.train), len(loaded.evaluation), loaded.held_out) == (92, 8, 8)
    assert Counter(each.label for each in loaded.evaluation) == {"good": 2, "bad": 6}


def test_a_repeated_row_is_evaluated_on_once(hundred: Path) -> None:
    loaded = load(source(hundred, weight=3), holdout=0.2)
    assert (len(loaded.train), len(loaded.evaluation)) == (240, 20)


@pytest.mark.parametrize(
    ("holdout", "words"),
    [
        (2.5, "data.holdout: is 2.5; it must be a share below 1 or a whole number"),
        (100, "data.holdout: holds out 100 of 100 examples"),
        (0.001, "holds out 0 of 100 examples.*raise it"),
    ],
)
def test_a_holdout_that_leaves_nothing_on_one_side_is_refused(hundred: Path, holdout: float, words: str) -> None:
    with pytest.raises((DataError, RecipeError), match=words):
        load(source(hundred), holdout=holdout)


@pytest.mark.parametrize(("how", "each"), [("undersample", 20), ("oversample", 60)])
def test_balance_is_of_training_alone(hundred: Path, how: str, each: int) -> None:
    loaded = load(source(hundred), holdout=20, balance=how)
    assert Counter(one.label for one in loaded.train) == {"good": each, "bad": each}
    assert Counter(one.label for one in loaded.evaluation) == {"good": 5, "bad": 15}
    assert loaded.unbalanced == 80
    numbers = [int(line.split(":")[1]) for line in lines(loaded.train)]
    assert numbers == sorted(numbers)
    if how == "oversample":
        assert set(Counter(one.where for one in loaded.train if one.label == "good").values()) == {3}


def test_a_label_without_an_example_cannot_be_balanced(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.balance: no training example has the label bad"):
        load(source(write(tmp_path / "a.jsonl", ["good"] * 3)), balance="oversample")


def test_class_weights_are_scikit_learns() -> None:
    import numpy as np
    from sklearn.utils.class_weight import compute_class_weight

    labels = ["good"] * 7 + ["bad"] * 2 + ["odd"]
    examples = [example("x", label, number) for number, label in enumerate(labels)]
    weights = class_weights(examples, ["bad", "good", "odd"])
    expected = compute_class_weight("balanced", classes=np.array(["bad", "good", "odd"]), y=labels)
    assert list(weights.values()) == pytest.approx(list(expected))
    assert [each.weight for each in weigh(examples, weights)] == [weights[label] for label in labels]


def test_class_weights_of_a_missing_label_are_refused() -> None:
    with pytest.raises(DataError, match=r"train\.class_weights: no training example has the label bad"):
        class_weights([example("x", "good", 1)], LABELS)


def test_a_label_map_that_leaves_everything_out_is_an_error(tmp_path: Path) -> None:
    rows = write(tmp_path / "a.jsonl", ["3", "3"])
    with pytest.raises(DataError, match="labels leaves out all 2 rows"):
        load(source(rows, labels={"3": None}))


def test_a_weight_that_takes_no_row_is_an_error(tmp_path: Path) -> None:
    rows = write(tmp_path / "a.jsonl", ["good", "bad"])
    with pytest.raises(DataError, match=r"weight 0\.1 selects none of 2 rows"):
        load(source(rows, weight=0.1))


def test_balancing_draws_label_by_label() -> None:
    examples = [example("x", label, number) for number, label in enumerate(["good"] * 2 + ["bad"] * 9)]
    drawn = [each.where for each in balance(examples, LABELS, "undersample", 0) if each.label == "bad"]
    more = [*examples, example("x", "good", 99), example("x", "good", 98)]
    still = [each.where for each in balance(more, LABELS, "undersample", 0) if each.label == "bad"]
    assert set(drawn) < set(still)


def test_summaries_and_their_references_are_read(shared_data: Path) -> None:
    rows = DataSource(
        source=str(shared_data / "scitldr" / "dev.jsonl"),
        format="text-summary",
        columns={"text": "source", "summary": "target"},
    )
    loaded = load_data(Data(train=[rows], prompt="summarize: {text}", holdout=0.1), "summarize")
    assert (len(loaded.train), len(loaded.evaluation)) == (557, 62)
    assert {len(each.references) for each in loaded.train} == {1, 2, 3, 4}
    assert all(each.answer == each.references[0] for each in loaded.train)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_hub_rows(folder)
    return folder


@pytest.mark.parametrize("name", sorted(name for name, file in shipped_recipes().items() if study_of(file)))
def test_the_data_of_every_study_are_read(hub: Path, name: str) -> None:
    recipe = load_recipe(name)
    recipe = load_recipe(name, local_sources(recipe, hub))
    loaded = load_data(recipe.data, recipe.task)
    for source, counts in zip(recipe.data.train, loaded.train_sources, strict=True):
        assert counts.read == HUB_ROW_COUNT
        assert (counts.labelled < counts.read) == (None in source.labels.values()), "only such labels are left out"
    assert len(loaded.train) + loaded.held_out == sum(counts.labelled for counts in loaded.train_sources)
    assert loaded.evaluation
    for each in (*loaded.train, *loaded.evaluation):
        asked = each.messages[-2].content
        assert not re.search(r"\{\w+\}", asked)
        if each.source is not None:
            assert all(part in asked for part in (each.source.text, *dict(each.source.others).values()))
        assert (each.label in recipe.data.labels) == (recipe.task == "classify")
