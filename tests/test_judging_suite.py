"""Suites: what they may say, where they are found, and the items that they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgetune import assets
from edgetune.errors import DataError, EdgetuneError, RecipeError
from edgetune.judging.results.prepared import prepare
from edgetune.judging.suites.items import hash_items, read_items
from edgetune.judging.suites.rubric import load_rubric
from edgetune.judging.suites.suite import load_suite, shipped_suites
from edgetune.recipe.load import load_recipe

ROWS = [
    {"text": "It broke at once.", "label": "negative"},
    {"text": "It has two handles {sic}.", "label": "neutral"},
    {"text": "I love it!", "label": "positive"},
]
SUITE = {
    "name": "little",
    "task": "classify",
    "data": [{"source": "items.jsonl", "format": "text-label"}],
    "labels": ["negative", "neutral", "positive"],
    "prompt": "Sentiment? {text}",
}


def write_suite(folder: Path, rows: list[dict[str, Any]] = ROWS, **changes: Any) -> str:
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "suite.yaml").write_text(yaml.safe_dump({**SUITE, **changes}))
    return str(folder / "suite.yaml")


def complaint(name: str, kind: type[EdgetuneError] = RecipeError) -> str:
    with pytest.raises(kind) as caught:
        read_items(load_suite(name))
    return str(caught.value)


@pytest.mark.parametrize("name", shipped_suites())
def test_every_shipped_suite_has_items_and_begins_with_the_command_that_runs_it(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    items = read_items(suite)
    assert {item.gold for item in items} == set(suite.labels or [None])
    assert suite.rubric is None or load_rubric(suite.rubric).criteria
    assert shipped_suites()[name].read_text().startswith(f"# edgetune judge {name} --model ")


def test_the_demo_suite_asks_what_the_demo_recipe_trains_on_items_that_it_does_not_train_on() -> None:
    suite, recipe = load_suite("sentiment-demo"), load_recipe("demo")
    assert suite.prompt == recipe.data.prompt
    assert suite.labels == recipe.data.labels
    assert [Path(source.source).name for source in suite.data] == [
        Path(source.source).name for source in recipe.data.eval
    ]
    training = {json.loads(line)["text"] for line in Path(recipe.data.train[0].source).read_text().splitlines()}
    items = read_items(suite)
    assert len(items) == 90
    assert not training & {item.text for item in items}


def test_the_demo_suites_data_lies_among_the_shipped_recipes() -> None:
    source = Path(load_suite("sentiment-demo").data[0].source)
    assert source.is_relative_to(assets.shipped("recipes").resolve())


def test_an_item_asks_the_prompt_with_its_text_and_knows_the_answer(tmp_path: Path) -> None:
    items = read_items(load_suite(write_suite(tmp_path)))
    assert [item.id for item in items] == ["1", "2", "3"]
    assert items[1].messages[0].content == "Sentiment? It has two handles {sic}."
    assert [message.role for message in items[1].messages] == ["user"]
    assert (items[1].gold, items[1].where, items[1].text) == ("neutral", "items.jsonl:2", "It has two handles {sic}.")


def test_the_gate_has_defaults_and_can_be_set(tmp_path: Path) -> None:
    gate = load_suite(write_suite(tmp_path)).gate
    assert (gate.metrics, gate.margin, gate.alpha) == ((), None, 0.05)
    gate = load_suite(
        write_suite(tmp_path, gate={"metric": ["accuracy", "macro_f1"], "margin": {"accuracy": 0.1}})
    ).gate
    assert gate.metrics == ("accuracy", "macro_f1")
    assert (gate.margin_of("accuracy", 0.02), gate.margin_of("macro_f1", 0.02)) == (0.1, 0.02)


def test_what_is_gated_and_measured_follows_from_task_rubric_and_gate(tmp_path: Path) -> None:
    question = prepare(load_suite(write_suite(tmp_path)))
    assert question.gated == ("accuracy",)
    assert {"accuracy", "macro_f1"} <= set(question.metrics)
    question = prepare(load_suite(write_suite(tmp_path, metrics=["accuracy"], gate={"metric": "weighted_f1"})))
    assert (question.gated, question.metrics) == (("weighted_f1",), ("accuracy", "weighted_f1"))
    judged = prepare(load_suite(write_suite(tmp_path, rubric="answer-quality")), ["http://127.0.0.1:1/v1#stub"])
    assert judged.gated == judged.criteria == tuple(load_rubric("answer-quality").criteria)
    pairwise = load_suite(write_suite(tmp_path, rubric="answer-quality", grading="pairwise", judge="openai"))
    assert prepare(pairwise).gated == ("preference",)


def test_a_criterion_with_the_name_of_one_of_the_suites_metrics_is_refused(tmp_path: Path) -> None:
    criterion = {"question": "Is it right?", "grades": {grade: f"grade {grade}" for grade in range(1, 6)}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "criteria": {"accuracy": criterion}}))
    suite = load_suite(write_suite(tmp_path, rubric="mine.yaml", judge="openai"))
    with pytest.raises(RecipeError, match="accuracy is both a metric of the suite and a criterion of its rubric"):
        prepare(suite)


def test_a_suites_own_rubric_and_judge_lie_beside_it(tmp_path: Path) -> None:
    criterion = {"question": "Is it right?", "grades": {grade: f"grade {grade}" for grade in range(1, 6)}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "criteria": {"right": criterion}}))
    judge = {"name": "ours", "model": "m", "url": "http://127.0.0.1:1/v1", "key": None}
    (tmp_path / "ours.yaml").write_text(yaml.safe_dump(judge))
    question = prepare(load_suite(write_suite(tmp_path, rubric="mine.yaml", judge=["ours.yaml"])))
    assert question.criteria == ("right",)
    assert [judge.name for judge in question.judges] == ["ours"]


@pytest.mark.parametrize(
    ("changes", "judges", "words"),
    [
        ({"rubric": "answer-quality"}, [], ["no judge is named", "--judge"]),
        ({}, ["openai"], ["has no rubric", "leave --judge out"]),
        ({"rubric": "answer-qualty"}, ["openai"], ["did you mean answer-quality?"]),
        ({"rubric": "answer-quality"}, ["opnai"], ["did you mean openai?"]),
        ({"rubric": "answer-quality"}, ["http://127.0.0.1:1/v1"], ["needs the name of a model", "#MODEL"]),
        ({"rubric": "answer-quality"}, ["openai", "openai"], ["the same name"]),
        ({"gate": {"metric": "acuracy"}}, [], ["acuracy", "did you mean accuracy?"]),
        ({"gate": {"metric": "length_words"}}, [], ["length_words", "cannot be compared"]),
        ({"gate": {"margin": 2}}, [], ["gate.margin is 2", "less than 1"]),
        ({"gate": {"margin": {"macro_f1": 0.1}}}, [], ["gate.margin is given for macro_f1", "compares accuracy"]),
        ({"metrics": ["rouge1"]}, [], ["rouge1", "classify"]),
        ({"metrics": ["acuracy"]}, [], ["acuracy", "did you mean accuracy?"]),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_asked(
    tmp_path: Path, changes: dict[str, Any], judges: list[str], words: list[str]
) -> None:
    with pytest.raises(EdgetuneError) as caught:
        prepare(load_suite(write_suite(tmp_path, **changes)), judges)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("missing", [3, None])
def test_a_rubric_needs_an_anchor_for_every_grade(tmp_path: Path, missing: int | None) -> None:
    grades = {grade: f"grade {grade}" for grade in range(1, 6) if grade != missing}
    criterion = {"question": "Is it right?", **({} if missing is None else {"grades": grades})}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "criteria": {"right": criterion}}))
    with pytest.raises(RecipeError) as caught:
        load_rubric(str(tmp_path / "mine.yaml"))
    assert "criteria.right.grades" in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_hashes_follow_what_shapes_predictions_and_nothing_else(tmp_path: Path) -> None:
    hashes = load_suite(write_suite(tmp_path)).hashes()
    other_gate = load_suite(write_suite(tmp_path, name="renamed", gate={"margin": 0.1})).hashes()
    other_prompt = load_suite(write_suite(tmp_path, prompt="Mood? {text}")).hashes()
    assert hashes == other_gate
    assert {part for part in hashes if hashes[part] != other_prompt[part]} == {"prompt"}


def test_the_data_hash_does_not_ask_where_the_file_lies(tmp_path: Path) -> None:
    hashes = set()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        hashes.add(hash_items(read_items(load_suite(write_suite(tmp_path / name)))))
    assert len(hashes) == 1
    changed = [*ROWS[:2], {"text": "I love it!", "label": "neutral"}]
    assert hash_items(read_items(load_suite(write_suite(tmp_path, changed)))) not in hashes


def test_ids_of_the_data_are_kept(tmp_path: Path) -> None:
    rows = [{**row, "id": f"q{number}"} for number, row in enumerate(ROWS)]
    assert [item.id for item in read_items(load_suite(write_suite(tmp_path, rows)))] == ["q0", "q1", "q2"]


def test_duplicate_ids_are_refused_with_both_places(tmp_path: Path) -> None:
    message = complaint(write_suite(tmp_path, [{**row, "id": "same"} for row in ROWS]), DataError)
    assert "items.jsonl:2" in message
    assert "the id same is used twice" in message
    assert "items.jsonl:1" in message


def test_an_unknown_label_in_the_data_is_refused_with_its_line(tmp_path: Path) -> None:
    message = complaint(write_suite(tmp_path, [*ROWS, {"text": "Hm.", "label": "mixed"}]), DataError)
    assert "items.jsonl:4" in message
    assert "mixed" in message
    assert "negative" in message


def test_an_unknown_suite_names_those_that_ship() -> None:
    message = complaint("sentiment-dmeo")
    assert "did you mean sentiment-demo?" in message


def test_a_missing_suite_file_is_named() -> None:
    assert "no such suite file" in complaint("nowhere/suite.yaml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lables": ["a", "b"]}, ["lables", "did you mean labels?"]),
        ({"gate": {"margn": 0.1}}, ["gate.margn", "did you mean margin?"]),
        ({"gate": {"margin": -1}}, ["gate.margin", "negative"]),
        ({"gate": {"metric": []}}, ["gate.metric", "no metric"]),
        ({"judge": "openai"}, ["judge", "rubric: answer-quality"]),
        ({"task": "perplexity", "data": [{"source": "items.jsonl", "format": "text"}]}, ["labels", "has none"]),
        ({"gate": {"alpha": 0}}, ["gate.alpha is 0", "more than 0"]),
        ({"labels": ["positive"]}, ["labels"]),
        ({"labels": ["positive", "positive"]}, ["labels", "named twice"]),
        ({"labels": ["positive", " "]}, ["labels", "empty"]),
        ({"prompt": "Sentiment?"}, ["prompt", "{text}"]),
        ({"scoring": "likelyhood"}, ["scoring", "did you mean likelihood?"]),
        ({"task": "chat"}, ["task", "classify"]),
        ({"data": []}, ["data"]),
        ({"data": [{"source": "items.jsonl", "format": "alpaca"}]}, ["data.0.format is alpaca", "text-label"]),
        ({"data": [{"source": "items.jsonl"}]}, ["data.0.format is missing"]),
    ],
)
def test_a_suite_that_cannot_be_meant_is_refused_by_field(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    message = complaint(write_suite(tmp_path, **changes))
    assert "suite.yaml" in message
    for word in words:
        assert word in message


def test_missing_data_is_refused_by_its_path(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    (tmp_path / "items.jsonl").unlink()
    assert "items.jsonl" in complaint(suite, DataError)
