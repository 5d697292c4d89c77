"""`extends`: a recipe that says only what differs from another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgetune import assets
from edgetune.errors import RecipeError
from edgetune.recipe.load import dump_recipe, load_recipe, shipped_recipes
from edgetune.recipe.methods import Ia3, Lora
from edgetune.recipe.schema import Recipe

PARENT: dict[str, Any] = {
    "name": "parent",
    "task": "classify",
    "base": {"model": "owner/model", "dtype": "float32"},
    "data": {
        "train": [{"source": "rows.jsonl", "format": "text-label", "labels": {"0": "up", "1": "down"}}],
        "labels": ["up", "down"],
        "prompt": "Up or down? {text}",
    },
    "method": {"type": "lora", "rank": 4, "alpha": 8, "targets": ["q_proj"]},
    "train": {"epochs": 2, "learning_rate": 1e-3},
}


@pytest.fixture
def write(tmp_path: Path):
    """Writes a recipe file into the test's folder."""

    def write(name: str, values: dict[str, Any]) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        return file

    return write


def load(file: Path, *overrides: str) -> Recipe:
    return load_recipe(str(file), overrides)


def test_a_recipe_that_says_nothing_more_is_the_one_that_it_extends(write):
    parent = write("parent.yaml", PARENT)
    assert load(write("child.yaml", {"extends": "parent.yaml"})) == load(parent)


def test_mappings_merge_and_what_is_not_said_stays(write):
    write("parent.yaml", PARENT)
    child = load(
        write(
            "child.yaml",
            {"extends": "parent.yaml", "name": "child", "method": {"rank": 64}, "train": {"epochs": 3, "seed": 7}},
        )
    )
    assert child.name == "child"
    assert child.method == Lora(type="lora", rank=64, alpha=8, targets=["q_proj"])
    assert (child.train.epochs, child.train.learning_rate, child.train.seed) == (3, 1e-3, 7)


def test_lists_and_plain_values_replace(write):
    write("parent.yaml", {**PARENT, "data": {**PARENT["data"], "max_length": {"percentile": 80}}})
    other = {"source": "other.csv", "format": "text-label"}
    child = load(
        write(
            "child.yaml",
            {"extends": "parent.yaml", "data": {"train": [other], "labels": ["up", "down", "even"], "max_length": 64}},
        )
    )
    assert [Path(source.source).name for source in child.data.train] == ["other.csv"]
    assert child.data.train[0].labels == {}
    assert child.data.labels == ["up", "down", "even"]
    assert child.data.max_length == 64
    assert child.data.prompt == PARENT["data"]["prompt"]


def test_a_method_of_another_type_leaves_nothing_of_the_old_one(write):
    write("parent.yaml", PARENT)
    child = load(write("child.yaml", {"extends": "parent.yaml", "method": {"type": "ia3", "targets": ["k_proj"]}}))
    assert child.method == Ia3(type="ia3", targets=["k_proj"])


def test_the_same_type_said_again_is_no_other_method(write):
    write("parent.yaml", PARENT)
    child = load(write("child.yaml", {"extends": "parent.yaml", "method": {"type": "lora", "rank": 9}}))
    assert child.method == Lora(type="lora", rank=9, alpha=8, targets=["q_proj"])


def test_a_base_given_by_its_name_alone_can_be_added_to(write):
    write("parent.yaml", {**PARENT, "base": "owner/model"})
    child = load(write("child.yaml", {"extends": "parent.yaml", "base": {"quantize": "nf4"}}))
    assert (child.base.model, child.base.quantize) == ("owner/model", "nf4")


def test_the_nearest_file_has_the_last_word_over_three_generations(write):
    write("a.yaml", PARENT)
    write("b.yaml", {"extends": "a.yaml", "method": {"rank": 5, "alpha": 10}})
    child = load(write("c.yaml", {"extends": "b.yaml", "method": {"rank": 6}}))
    assert (child.method.rank, child.method.alpha, child.method.targets) == (6, 10, ["q_proj"])


def test_overrides_come_after_merging(write):
    write("parent.yaml", PARENT)
    child = write("child.yaml", {"extends": "parent.yaml", "train": {"epochs": 3}})
    recipe = load(child, "train.epochs=9", "data.train.0.split=train[:2]", "method.rank=1")
    assert (recipe.train.epochs, recipe.data.train[0].split, recipe.method.rank) == (9, "train[:2]", 1)


def test_an_override_of_one_place_does_not_change_another_that_shares_its_anchor(tmp_path: Path):
    text = yaml.safe_dump({**PARENT, "data": None}).replace(
        "data: null",
        "data:\n  labels: [up, down]\n  prompt: '{text}'\n"
        "  train: [&rows {source: a.csv, format: text-label, labels: {'0': up}}]\n"
        "  eval: [{<<: *rows, split: test}]",
    )
    (tmp_path / "anchored.yaml").write_text(text, encoding="utf-8")
    recipe = load(tmp_path / "anchored.yaml", "data.train.0.labels.0=down")
    assert (recipe.data.train[0].labels, recipe.data.eval[0].labels) == ({"0": "down"}, {"0": "up"})


def test_paths_stay_relative_to_the_file_that_wrote_them(write, tmp_path: Path):
    write(
        "far/away/parent.yaml",
        {
            **PARENT,
            "base": {"model": "../model.gguf"},
            "data": {**PARENT["data"], "template": "mine.jinja"},
        },
    )
    own = [{"source": "own.csv", "format": "text-label"}, {"source": "owner/set", "format": "text-label"}]
    child = load(write("child.yaml", {"extends": "far/away/parent.yaml", "data": {"eval": own}}))
    folder = tmp_path.resolve()
    assert child.data.train[0].source == str(folder / "far" / "away" / "rows.jsonl")
    assert child.data.template == str(folder / "far" / "away" / "mine.jinja")
    assert child.base.model == str(folder / "far" / "model.gguf")
    assert [source.source for source in child.data.eval] == [str(folder / "own.csv"), "owner/set"]


def test_paths_of_overrides_are_relative_to_where_the_command_runs(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = write("far/recipe.yaml", PARENT)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    recipe = load(file, "data.train.0.source=mine.csv", "base.model=./model", "data.template=../mine.jinja")
    assert recipe.data.train[0].source == str(tmp_path.resolve() / "here" / "mine.csv")
    assert recipe.base.model == str(tmp_path.resolve() / "here" / "model")
    assert recipe.data.template == str(tmp_path.resolve() / "mine.jinja")


def test_a_shipped_recipe_is_extended_by_its_name(write):
    child = load(write("mine.yaml", {"extends": "demo", "name": "mine", "train": {"epochs": 1}}))
    demo = load_recipe("demo")
    assert (child.data, child.method, child.base) == (demo.data, demo.method, demo.base)
    assert (child.name, child.train.epochs, child.train.learning_rate) == ("mine", 1, demo.train.learning_rate)


def test_a_file_beside_it_goes_before_a_shipped_recipe_of_that_name(write):
    write("demo", PARENT)
    assert load(write("mine.yaml", {"extends": "demo"})).base.model == "owner/model"


def test_the_resolved_recipe_extends_nothing(write, tmp_path: Path):
    write("parent.yaml", PARENT)
    child = load(write("child.yaml", {"extends": "parent.yaml", "name": "child"}))
    resolved = tmp_path / "elsewhere" / "recipe.yaml"
    resolved.parent.mkdir()
    resolved.write_text(dump_recipe(child), encoding="utf-8")
    assert "extends" not in yaml.safe_load(resolved.read_text(encoding="utf-8"))
    assert load(resolved) == child


def test_a_circle_is_refused_with_the_way_around_it(write):
    write("a.yaml", {"extends": "b.yaml"})
    write("b.yaml", {"extends": "c.yaml"})
    last = write("c.yaml", {"extends": "a.yaml"})
    with pytest.raises(RecipeError) as caught:
        load(last.with_name("a.yaml"))
    assert str(caught.value) == f"{last}: extends goes in a circle: a.yaml → b.yaml → c.yaml → a.yaml"


def test_a_recipe_cannot_extend_itself(write):
    with pytest.raises(RecipeError, match=r"extends goes in a circle: a\.yaml → a\.yaml"):
        load(write("a.yaml", {"extends": "a.yaml"}))


def test_a_missing_parent_is_named_with_the_file_that_asks_for_it(write):
    middle = write("middle.yaml", {"extends": "demmo"})
    with pytest.raises(RecipeError) as caught:
        load(write("child.yaml", {"extends": "middle.yaml"}))
    assert str(caught.value).startswith(
        f"{middle}: extends names demmo, and there is no such recipe (did you mean demo?)"
    )


@pytest.mark.parametrize("value", [None, 3, ["demo"], ""])
def test_extends_must_be_a_name(write, value: object):
    with pytest.raises(RecipeError, match=r"child\.yaml: extends is .* the name of a shipped recipe or the path"):
        load(write("child.yaml", {"extends": value}))


def test_an_unknown_key_is_blamed_on_the_file_that_wrote_it(write):
    parent = write("parent.yaml", {**PARENT, "train": {"epocs": 2}})
    child = write("child.yaml", {"extends": "parent.yaml", "train": {"seed": 1}})
    with pytest.raises(RecipeError) as caught:
        load(child)
    assert str(caught.value).startswith(f"{parent}: unknown key train.epocs (did you mean epochs?)")


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"method": {"rank": 0}}, "child.yaml: method.rank is 0"),
        ({"method": {"alpha": 8}}, "parent.yaml: method.rank is -1"),
        ({"data": {"train": [{"source": "x.csv"}]}}, "child.yaml: data.train.0.format is missing"),
    ],
)
def test_a_wrong_value_is_blamed_on_the_file_that_wrote_it(write, tmp_path: Path, said: dict[str, Any], complaint: str):
    write("parent.yaml", {**PARENT, "method": {**PARENT["method"], "rank": -1}})
    with pytest.raises(RecipeError) as caught:
        load(write("child.yaml", {"extends": "parent.yaml", **said}))
    assert str(caught.value).startswith(str(tmp_path / complaint))


def test_what_no_file_says_is_missing_from_the_recipe_itself(write):
    write("parent.yaml", {key: value for key, value in PARENT.items() if key != "method"})
    child = write("child.yaml", {"extends": "parent.yaml"})
    with pytest.raises(RecipeError) as caught:
        load(child)
    assert str(caught.value) == f"{child}: method is missing"


def test_extends_misspelled_is_understood(write):
    with pytest.raises(RecipeError, match=r"child\.yaml: unknown key extend \(did you mean extends\?\)"):
        load(write("child.yaml", {"extend": "demo"}))


def test_a_base_for_others_is_neither_listed_nor_run(edgetune_command):
    hidden = {name for name in assets.shipped_files("recipes", "**/*.yaml") if name.startswith("_")}
    assert hidden
    assert not hidden & set(shipped_recipes())
    listed = {recipe["name"] for recipe in json.loads(edgetune_command("recipes", "--json").stdout)}
    assert listed == set(shipped_recipes())
    with pytest.raises(RecipeError, match="there is no recipe of this name"):
        load_recipe(min(hidden))


def test_no_two_shipped_recipes_have_the_same_name():
    files = [*assets.shipped("recipes").rglob("*.yaml")]
    assert len({file.stem for file in files}) == len(files)


def test_recipes_are_listed_by_study(edgetune_command):
    listed = json.loads(edgetune_command("recipes", "--json").stdout)
    studies = [recipe["study"] for recipe in listed]
    assert studies[0] is None
    assert studies == sorted(studies, key=lambda study: study or "")
    assert {recipe["study"] for recipe in listed if "billsum" in recipe["name"]} == {"eight-methods"}
    shown = edgetune_command("recipes").stdout
    assert shown.index("Study sst2") < shown.index("distilbert-hira-sst2")


def test_listing_recipes_loads_no_torch(run_python):
    program = (
        "import sys; sys.argv = ['edgetune', 'recipes', '--json']\n"
        "from edgetune.cli.app import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    assert run_python(program).endswith("False")


def test_a_recipe_is_shown_as_its_file_or_with_all_that_it_inherits(edgetune_command):
    name = "llama-3.2-1b-qlora-finetome"
    file = edgetune_command("recipes", name).stdout
    assert "extends: llama-3.2-1b-lora-finetome" in file
    assert "FineTome-100k, split" not in file
    resolved = yaml.safe_load(edgetune_command("recipes", name, "--resolved").stdout)
    assert Recipe.model_validate(resolved) == load_recipe(name)
    assert edgetune_command("recipes", "--resolved").exit_code == 2
