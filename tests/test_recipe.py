"""Recipes: what loads, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edgetune.errors import RecipeError
from edgetune.recipe.load import dump_recipe, load_recipe, shipped_recipes
from edgetune.recipe.methods import Ia3, Lora


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_loads_and_says_which_command_runs_it(name: str):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert shipped_recipes()[name].read_text(encoding="utf-8").split("\n")[0] == f"# edgetune train {name}"


def test_the_ia3_recipe_is_the_study_that_it_names():
    recipe = load_recipe("llama-3.2-1b-ia3-tweet-sentiment")
    assert isinstance(recipe.method, Ia3)
    assert recipe.method.targets == ["q_proj", "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.train.accumulate) == (3, 98, 2)
    assert (recipe.train.learning_rate, recipe.data.max_length, recipe.base.dtype) == (5e-3, 160, "bfloat16")


def test_both_tweet_sentiment_recipes_ask_the_same_question_of_the_same_data():
    by_ia3, by_qlora = (load_recipe(f"llama-3.2-1b-{method}-tweet-sentiment") for method in ("ia3", "qlora"))
    assert by_ia3.data == by_qlora.data
    assert by_qlora.base.quantize == "nf4"


def test_a_resolved_recipe_loads_to_itself(tmp_path: Path):
    recipe = load_recipe("demo", ["train.learning_rate=3e-4"])
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(str(file)) == recipe


def test_overrides_are_yaml_typed_and_reach_into_lists():
    recipe = load_recipe(
        "demo",
        [
            "train.learning_rate=1e-4",
            "data.max_length={percentile: 80}",
            "data.train.0.split=train[:9]",
            "base.dtype=auto",
        ],
    )
    assert recipe.train.learning_rate == 1e-4
    assert recipe.data.max_length.percentile == 80
    assert recipe.data.train[0].split == "train[:9]"


def test_an_override_may_turn_a_scalar_into_a_section():
    assert load_recipe("demo", ["data.max_length.percentile=90"]).data.max_length.percentile == 90


def test_a_label_map_may_name_numbers_without_quotes():
    recipe = load_recipe("demo", ["data.labels=[down, up]", "data.train.0.labels={0: down, 4.0: up}"])
    assert recipe.data.train[0].labels == {"0": "down", "4.0": "up"}


def test_a_whole_method_can_be_swapped():
    recipe = load_recipe("demo", ["method={type: ia3, targets: [k_proj], feedforward: []}"])
    assert isinstance(recipe.method, Ia3)
    assert isinstance(load_recipe("demo").method, Lora)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("method.rank=-1", "method.rank is -1; it must be at least 1"),
        ("method.rnk=8", "unknown key method.rnk (did you mean rank?)"),
        ("train.learning_rat=1", "did you mean learning_rate?"),
        ("method.type=lroa", "unknown type 'lroa'"),
        ("train.epochs=many", "train.epochs is 'many'; input should be a valid number"),
        ("base.quantize=nf5", "base.quantize is 'nf5' (did you mean nf4?)"),
        ("data.train=[]", "data.train is []"),
        ("data.labels=[positive]", "data.labels needs at least 2 labels"),
        ("data.labels=[positive, positive]", "data.labels names a label twice"),
        ("data.prompt=Sentiment?", "data.prompt must contain {text}"),
        ("task=chat", "data.labels belongs to task classify"),
        ("data.train.0.format=sharegpt", "data.train.0.format is sharegpt, which task classify cannot read"),
        ("data.train.7.format=messages", "there is no 7 to set here"),
        (
            "method={type: ia3, targets: [k_proj], feedforward: [up_proj]}",
            "feedforward names up_proj, but targets does not",
        ),
        ("method={rank: 8}", "method.type is missing"),
        (
            "train={optimizer: sgd, adapter_dtype: bfloat16}",
            ("train.adapter_dtype bfloat16 needs an optimizer with 32-bit weights"),
        ),
        ("train.epochs", "an override reads key=value"),
        ("train.epochs={", "not valid YAML"),
        ("train.learning_rate=.inf", "train.learning_rate is inf; input should be a finite number"),
        ("data.labels=[yes, no]", "data.labels.0 is true (YAML also reads yes, no, on and off so); put text in quotes"),
        ("data.labels=[1, 2]", 'data.labels.0 is the number 1; put text in quotes: "1"'),
    ],
)
def test_a_wrong_value_is_refused_by_name(override: str, expected: str):
    with pytest.raises(RecipeError) as caught:
        load_recipe("demo", [override])
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("base.quantize=nf4", "method full cannot train the weights of an nf4 base"),
        ("base.dtype=float16", "method full cannot train float16 weights"),
        ("train.parallel=fsdp", "train.parallel fsdp spreads frozen weights, and method full has none"),
    ],
)
def test_what_full_training_cannot_do_is_refused_by_name(override: str, expected: str):
    with pytest.raises(RecipeError) as caught:
        load_recipe("demo", ["method={type: full}", override])
    assert expected in str(caught.value)


def test_an_unknown_recipe_names_the_nearest_and_where_to_look():
    with pytest.raises(RecipeError, match=r"did you mean demo\?.*edgetune recipes"):
        load_recipe("dmo")


def test_a_missing_file_is_not_taken_for_a_name():
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe("here/demo.yaml")


def test_broken_yaml_is_refused_with_its_line(tmp_path: Path):
    file = tmp_path / "broken.yaml"
    file.write_text("name: x\ntask: [chat\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"broken\.yaml:3:1"):
        load_recipe(str(file))


def test_data_paths_are_relative_to_the_recipe(tmp_path: Path):
    values = yaml.safe_load(shipped_recipes()["demo"].read_text(encoding="utf-8"))
    values["data"]["train"][0]["source"] = "mine.csv"
    values["data"]["eval"] = [{"source": "owner/set", "format": "text-label"}]
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    recipe = load_recipe(str(file))
    assert recipe.data.train[0].source == str(tmp_path.resolve() / "mine.csv")
    assert recipe.data.eval[0].source == "owner/set"


def test_recipes_are_read_without_torch(run_python):
    assert run_python("import sys, edgetune.recipe.load; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize(
    ("recipe", "names", "expected"),
    [
        ("demo", "weighted_f", "weighted_f (did you mean weighted_f1?); an evaluation of task"),
        ("demo", "rougeL", "train.metrics names rougeL"),
        ("llama-3.2-1b-qlora-finetome", "accuracy", "train.metrics belongs to task classify and summarize, not chat"),
    ],
)
def test_a_metric_that_an_evaluation_cannot_compute_is_refused_by_name(recipe: str, names: str, expected: str):
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, [f"train.metrics=[{names}]"])
    assert expected in str(caught.value)


def test_an_evaluation_may_have_further_metrics():
    recipe = load_recipe("demo", ["train.metrics=[weighted_f1, macro_recall]"])
    assert recipe.train.metrics == ["weighted_f1", "macro_recall"]
