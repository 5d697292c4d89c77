"""The recipes of the five studies: what the studies state stands in them, siblings differ in one thing, each trains.

Parameters are counted on the meta device, from configurations that ship. Training is shrunken: a tiny model of the same
family, local rows with the hub's columns, two updates.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.hub_rows import HUB_ROWS, ROWS, write_hub_rows
from support.shrunken import FAMILIES, SUMMARIES, UPDATES, family_of, save_families, shrink, trained_parameters

from edgetune.recipe.data import DataSource
from edgetune.recipe.load import load_recipe, shipped_recipes, study_of
from edgetune.recipe.schema import Recipe

FAMILIES["bert"] = ("BertForPreTraining", {})  # the class of the hub's own, which stores a pooler

STUDIED = sorted(name for name, file in shipped_recipes().items() if study_of(file))

STATED: dict[str, dict[str, Any]] = {
    r"llama-3.2-1b-.*sentiment.*": {
        "base.model": "meta-llama/Llama-3.2-1B",
        "base.dtype": "bfloat16",
        "data.max_length": 160,
        "train.optimizer": "adamw",
    },
    r"llama-3.2-1b-(?!ia3-binary).*sentiment.*": {"data.labels": ["negative", "neutral", "positive"]},
    r"llama-3.2-1b-ia3-binary-sentiment": {"data.labels": ["negative", "positive"]},
    r"llama-3.2-1b-qlora-umsab-sentiment": {
        "data.train.0.source": "cardiffnlp/tweet_sentiment_multilingual",
        "data.train.0.subset": "english",
    },
    r"llama-3.2-1b-ia3-.*sentiment": {
        "base.quantize": "none",
        "method.type": "ia3",
        "method.targets": ["q_proj", "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "train.epochs": 3,
        "train.batch_size": 98,
        "train.accumulate": 2,
        "train.learning_rate": 5e-3,
    },
    r"llama-3.2-1b-qlora-.*sentiment.*": {
        "base.quantize": "nf4",
        "method.type": "lora",
        "train.batch_size": 4,
        "train.gradient_checkpointing": True,
    },
    r"llama-3.2-1b-.*-head": {"base.head": "classification", "train.epochs": 2},
    r"llama-3-8b-.*": {
        "base.model": "meta-llama/Meta-Llama-3-8B",
        "method.type": "lora",
        "method.dropout": 0.05,
        "method.bias": "none",
    },
    r"llama-3-8b-lora-.*": {"base.quantize": "none", "base.dtype": "float16"},
    r"llama-3-8b-qlora-.*": {
        "base.quantize": "nf4",
        "base.double_quantization": True,
        "base.dtype": "bfloat16",
    },
    r"llama-3-8b-.*-pubmedqa.*": {"task": "classify", "data.labels": ["yes", "no", "maybe"]},
    r"llama-3-8b-.*-stackoverflow.*": {"task": "chat"},
    r"llama-3-8b-.*-(pubmedqa|stackoverflow)": {"method.rank": 16, "method.alpha": 32},
    r"llama-3-8b-.*-r8.*": {"method.rank": 8, "method.alpha": 16},
    r"llama-3-8b-.*-r64.*": {"method.rank": 64, "method.alpha": 128},
    r"llama-3-8b-.*(pubmedqa|stackoverflow|r8|r64)": {"method.targets": ["q_proj", "v_proj"]},
    r"llama-3-8b-.*-all-linear": {"method.targets": "all-linear"},
    r".*-billsum": {
        "task": "summarize",
        "data.train.0.source": "FiscalNote/billsum",
        "base.dtype": "bfloat16",
        "data.max_source_length": 1400,
        "data.max_target_length": 256,
        "train.batch_size": 1,
        "train.accumulate": 4,
    },
    r"llama.*-billsum": {"data.template": "alpaca", "train.epochs": 5, "train.learning_rate": 5e-3},
    r"flan-t5-xl-.*-billsum": {
        "data.prompt": "summarize: {text}",
        "train.epochs": 10,
        "train.learning_rate": 6e-2,
    },
    r".*-(lora|loha|lokr)-billsum": {"method.rank": 2, "method.alpha": 4},
    r".*-qlora-billsum": {"base.quantize": "nf4", "method.rank": 4, "method.alpha": 4},
    r".*-adalora-billsum": {"method.target_rank": 2, "method.alpha": 4, "method.tfinal": 1000},
    r"llama-3.2-3b-adalora-billsum": {"method.delta_t": 10},
    r"flan-t5-xl-adalora-billsum": {"method.init_rank": 12},
    r"llama.*-(lora|qlora|adalora|loha|lokr)-(billsum|emotion)": {"method.targets": ["k_proj", "v_proj"]},
    r"flan-t5-xl-(lora|qlora|adalora|loha|lokr|ia3)-(billsum|emotion)": {"method.targets": ["q", "v"]},
    r"flan-t5-xl-prefix-billsum": {"method.virtual_tokens": 200, "method.hidden_size": 128},
    r"flan-t5-xl-prompt-billsum": {"method.virtual_tokens": 200},
    r"flan-t5-xl-p-tuning-billsum": {"method.virtual_tokens": 200, "method.hidden_size": 128},
    r".*-emotion": {
        "task": "classify",
        "data.train.0.source": "dair-ai/emotion",
        "data.labels": ["sadness", "joy", "love", "anger", "fear", "surprise"],
        "train.batch_size": 2,
        "train.epochs": 20,
        "train.class_weights": "balanced",
    },
    r"llama-3.2-3b-.*-emotion": {
        "base.model": "meta-llama/Llama-3.2-3B",
        "base.head": "classification",
        "train.learning_rate": 5e-5,
    },
    r"flan-t5-xl-.*-emotion": {"base.head": "lm", "train.learning_rate": 4e-4},
    r".*-(lora|qlora|loha|lokr)-emotion": {"method.rank": 8, "method.alpha": 16},
    r".*-qlora-emotion": {"base.quantize": "nf4"},
    r".*-adalora-emotion": {"method.target_rank": 8, "method.alpha": 16},
    r"llama-3.2-3b-adalora-emotion": {"method.delta_t": 10},
    r"flan-t5-xl-adalora-emotion": {"method.tinit": 50},
    r"flan-t5-xl-p-tuning-emotion": {"method.virtual_tokens": 1000},
    r"bert-base-full-emotion": {"base.head": "classification", "method.type": "full"},
    r".*-(billsum|emotion)": {
        "train.optimizer": "paged_adamw",
        "train.schedule": "cosine",
        "train.weight_decay": 0.01,
        "train.max_grad_norm": 0.3,
    },
    r"(?!.*-prefix-).*-(billsum|emotion)": {"train.gradient_checkpointing": True},
    r"llama-3.2-3b-.*-billsum": {"base.model": "meta-llama/Llama-3.2-3B-Instruct"},
    r"bert-base-.*": {"base.model": "google-bert/bert-base-uncased"},
    r"flan-t5-xl-.*": {"base.model": "google/flan-t5-xl"},
    r".*-finetome(-500)?": {
        "task": "chat",
        "data.template": "alpaca",
        "data.train.0.split": "train[:1000]",
        "data.eval.0.split": "train[1000:1020]",
        "method.rank": 16,
        "train.batch_size": 1,
        "train.accumulate": 4,
        "train.optimizer": "adamw_8bit",
    },
    r".*-finetome": {"train.max_steps": 120, "train.learning_rate": 2e-4},
    r".*-finetome-500": {"train.max_steps": 500},
    r"llama-3.2-1b-.*-finetome-500": {"train.learning_rate": 5e-5},
    r"distilbert-.*-sst2": {
        "base.model": "distilbert/distilbert-base-uncased",
        "base.head": "classification",
        "data.train.0.source": "stanfordnlp/sst2",
        "method.targets": ["q_lin", "v_lin"],
        "train.epochs": 3,
        "train.batch_size": 16,
        "train.learning_rate": 3e-4,
        "train.weight_decay": 0.01,
        "train.warmup_steps": 100,
        "train.optimizer": "adamw",
        "train.schedule": "linear",
    },
    r"distilbert-(lora|qlora|shira|hira)-sst2": {"method.rank": 8},
    r"distilbert-q?lora-sst2": {"method.type": "lora", "method.alpha": 16, "method.dropout": 0.1},
    r"distilbert-qlora-sst2": {"base.quantize": "nf4", "base.double_quantization": True},
    r"distilbert-hira-sst2": {"method.dropout": 0.1},
    r"distilbert-supertuning-sst2": {"method.r": 8, "method.lora_alpha": 16, "method.lora_dropout": 0.1},
}
"""Names of recipes -> what docs/studies.md gives as the study's own."""

COUNTED: dict[str, tuple[int, float | None]] = {
    "llama-3.2-3b-lora-billsum": (458_752, 0.0143),
    "llama-3.2-3b-qlora-billsum": (917_504, None),
    "llama-3.2-3b-qlora-billsum -s method.rank=2": (458_752, None),  # the rank of its text
    "llama-3.2-3b-ia3-billsum": (745_472, 0.0232),
    "llama-3.2-3b-ia3-billsum -s 'method.targets=[up_proj, down_proj]'": (458_752, None),  # the targets of its text
    "llama-3.2-3b-prefix-billsum": (11_468_800, 0.3557),
    "flan-t5-xl-lora-billsum": (1_179_648, 0.0414),
    "flan-t5-xl-qlora-billsum": (2_359_296, None),
    "llama-3.2-3b-ia3-emotion": (477_184, 0.0149),
    "llama-3.2-3b-ia3-emotion -s 'method.targets=[up_proj, down_proj]'": (477_184, 0.0149),
}
"""Recipe and overrides -> the trained parameters that the thesis gives, a classification head among them, and their
percentage of all, to its four digits."""

CARD: dict[str, tuple[int, int]] = {
    "distilbert-qlora-sst2": (739_586, 67_694_596),
    "distilbert-qlora-sst2 -s base.model=google-bert/bert-base-uncased -s 'method.targets=[query, key, value]'": (
        443_906,
        109_927_684,
    ),
}
"""What `edgetune plan` is given in docs/studies.md -> trained parameters and all: of DistilBERT as its card states it,
and those that the card gives."""

METHODS = {
    "lora": "lora",
    "qlora": "lora",
    **{name: name for name in ("adalora", "loha", "lokr", "ia3", "prefix", "prompt", "p-tuning")},
    **{name: name for name in ("shira", "hira", "supertuning", "full")},
}
"""How a recipe's name says its method -> method.type."""

SIBLINGS: dict[tuple[str, str], set[str]] = {
    (r"(llama-3.2-1b-qlora-.*)-head", r"\1"): {
        "base.head",
        "data.prompt",
        "data.max_source_length",
        "train.epochs",
    },
    (r"(llama-3.2-1b-ia3|llama-3.2-1b-qlora)-tweet-sentiment", r"\1-sentiment"): {"data.train", "data.prompt"},
    (r"(.*)-umsab-sentiment", r"\1-tweet-sentiment"): {"data.train", "data.eval"},
    (r"(.*)-binary-sentiment", r"\1-sentiment"): {"data.train", "data.eval", "data.labels", "data.prompt"},
    (r"(llama-3-8b)-qlora-(.*)", r"\1-lora-\2"): {"base.quantize", "base.dtype"},
    (r"(.*)-qlora-(.*-finetome.*|emotion|sst2)", r"\1-lora-\2"): {"base.quantize"},
    (r"(.*)-qlora-billsum", r"\1-lora-billsum"): {"base.quantize", "method.rank"},
    (r"(llama-3-8b-.*)-r(8|64)", r"\1"): {"method.rank", "method.alpha"},
    (r"(llama-3-8b-.*)-all-linear", r"\1"): {"method.targets"},
    (
        r"(.*)-(adalora|loha|lokr|ia3|p-tuning|prompt|shira|hira|supertuning)-(billsum|emotion|sst2)",
        r"\1-lora-\3",
    ): {"method"},
    (r"(.*)-prefix-(.*)", r"\1-lora-\2"): {"method", "train.gradient_checkpointing"},
    (r"llama-3.2-3b-(.*-finetome)", r"llama-3.2-1b-\1"): {"base.model"},
    (r"(llama-3.2-1b-.*)-500", r"\1"): {"train.max_steps", "train.learning_rate"},
    (r"(llama-3.2-3b-.*)-500", r"\1"): {"train.max_steps"},
}
"""Recipe and the sibling that it is compared with -> the fields in which they differ, and no others."""


def field(recipe: Recipe, path: str) -> Any:
    place = recipe.model_dump()
    for step in path.split("."):
        place = place[int(step)] if isinstance(place, list) else place[step]
    return place


@pytest.mark.parametrize("names", STATED)
def test_a_recipe_says_what_its_study_states(names: str):
    matching = [name for name in STUDIED if re.fullmatch(names, name)]
    assert matching
    for name in matching:
        recipe = load_recipe(name)
        assert {path: field(recipe, path) for path in STATED[names]} == STATED[names], name


@pytest.mark.parametrize("name", STUDIED)
def test_a_recipe_has_the_method_of_its_name(name: str):
    said = [METHODS[word] for word in METHODS if f"-{word}-" in name]
    assert said == [load_recipe(name).method.type]


@pytest.mark.parametrize(("name", "sibling"), SIBLINGS)
def test_siblings_differ_in_what_they_are_to_compare_and_in_nothing_else(name: str, sibling: str):
    pairs = [(each, re.sub(name, sibling, each)) for each in STUDIED if re.fullmatch(name, each)]
    compared = [(one, other) for one, other in pairs if other in STUDIED]
    assert compared
    for one, other in compared:
        assert set(differences(load_recipe(one), load_recipe(other))) == SIBLINGS[name, sibling], one


def differences(one: Recipe, other: Recipe) -> list[str]:
    """Dotted names of the fields that differ, name and description apart; a method of another type is one field."""
    found: list[str] = []

    def compare(left: Any, right: Any, path: str) -> None:
        if isinstance(left, dict) and isinstance(right, dict) and left.get("type") == right.get("type"):
            for key in sorted(left.keys() | right.keys()):
                compare(left.get(key), right.get(key), f"{path}.{key}".lstrip("."))
        elif left != right:
            found.append(path)

    shared = {"name", "description"}
    compare(one.model_dump(exclude=shared), other.model_dump(exclude=shared), "")
    return found


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("planned", COUNTED)
def test_a_recipe_trains_as_many_parameters_as_the_thesis_counts(planned: str):
    trainable, percent = COUNTED[planned]
    counted, total, _ = count(planned)
    assert counted == trainable
    if percent is not None:
        assert round(100 * counted / total, 4) == percent


@pytest.mark.usefixtures("offline")
def test_the_count_of_the_thesis_for_ia3_on_emotion_holds_a_head_of_six_scores():
    counted, _, head = count("llama-3.2-3b-ia3-emotion")
    assert head == 6 * 3072
    assert counted - head == 458_752


@pytest.mark.usefixtures("offline")
def test_ia3_for_sentiment_trains_less_than_a_thousandth():
    for name in ("llama-3.2-1b-ia3-sentiment", "llama-3.2-1b-ia3-binary-sentiment"):
        counted, total, _ = count(name)
        assert counted / total < 0.001


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("planned", CARD)
def test_the_plan_shows_the_parameters_of_distilbert_and_those_of_its_card(planned: str):
    from rich.console import Console

    from edgetune.planning.plan_table import render
    from edgetune.planning.planning import plan_training

    documented = (Path(__file__).parents[1] / "docs" / "studies.md").read_text(encoding="utf-8")
    assert f"edgetune plan {planned}  #" in documented
    plan = plan_training(load_recipe(*arguments(planned)), device_memory="16GB", flops="a100")
    console = Console(width=120)
    with console.capture() as shown:
        console.print(render(plan))
    trainable, total = CARD[planned]
    assert f"trained: {trainable:,} of {total:,} parameters" in shown.get()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def arguments(planned: str) -> tuple[str, Sequence[str]]:
    """The recipe and the overrides of a command line's end."""
    name, *rest = shlex.split(planned)
    return name, [word for word in rest if word != "-s"]


def count(planned: str) -> tuple[int, int, int]:
    """Parameters on the meta device: trained, all, and those of a trained classification head."""
    import torch

    from edgetune.planning.base import find_base
    from edgetune.planning.planning import UNKNOWN_STEPS
    from edgetune.planning.skeleton import build_skeleton

    recipe = load_recipe(*arguments(planned))
    base = find_base(recipe.base)
    assert base.origin in ("shipped", "cache")
    built = build_skeleton(recipe, base, dtype=torch.bfloat16, total_steps=UNKNOWN_STEPS)
    head = sum(
        parameter.numel()
        for name, parameter in built.model.named_parameters()
        if parameter.requires_grad and ".modules_to_save." in name
    )
    return built.trainable_parameters, built.total_parameters, head


def test_adalora_of_the_thesis_cuts_ranks_for_8000_updates_and_trains_for_20_epochs():
    recipe = load_recipe("llama-3.2-3b-adalora-emotion")
    updates = 20 * 16_000 // (recipe.train.batch_size * recipe.train.accumulate)
    assert updates - recipe.method.tfinal == 8_000


def test_the_binary_run_reads_the_same_sources_without_what_is_neutral():
    three, two = (load_recipe(f"llama-3.2-1b-ia3-{run}").data for run in ("sentiment", "binary-sentiment"))
    for whole, part in zip((*three.train, *three.eval), (*two.train, *two.eval), strict=True):
        labels = {value: None if label == "neutral" else label for value, label in whole.labels.items()}
        assert part == whole.model_copy(update={"labels": labels})


def test_five_sources_make_as_many_examples_as_the_study_had():
    sizes = {"cardiffnlp/tweet_eval": 45615, "SetFit/sst5": 8544, "stanfordnlp/imdb": 25000}
    sizes |= {"Yelp/yelp_review_full": 650000, "stanfordnlp/sentiment140": 1600000}
    sources = load_recipe("llama-3.2-1b-ia3-sentiment").data.train
    assert {source.source for source in sources} == set(sizes)
    assert sum(min(sizes[source.source], source.cap or math.inf) for source in sources) == 944423


def test_every_data_set_of_a_study_has_local_rows():
    data = [load_recipe(name).data for name in STUDIED]
    named = {source.source for each in data for source in (*each.train, *each.eval)}
    assert named == set(HUB_ROWS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_families(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="module")
def shrunken(tmp_path_factory: pytest.TempPathFactory, bases: dict[str, Path]) -> Callable[[str], Recipe]:
    """Loads a recipe shrunken."""
    rows = tmp_path_factory.mktemp("rows")
    write_hub_rows(rows)
    return lambda name: shrink(name, bases, rows)


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("name", STUDIED)
def test_a_recipe_trains_shrunken(name: str, shrunken: Callable[[str], Recipe], bases: dict[str, Path], tmp_path: Path):
    from edgetune.training.run import train

    recipe, run = shrunken(name), tmp_path / "run"
    summary = train(recipe, run)

    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    updates = [row for row in rows if "loss" in row]
    assert [row["step"] for row in updates] == [1, UPDATES]
    assert summary.steps == UPDATES
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in updates)
    assert summary.method == METHODS[next(word for word in METHODS if f"-{word}-" in name)]
    assert summary.trainable_parameters == expected_parameters(recipe, bases[family_of(name)])
    assert summary.eval_loss is not None
    assert math.isfinite(summary.eval_loss)
    assert_evaluated(recipe, summary.evaluation)
    if recipe.method.type == "full":
        assert (run / "model" / "model.safetensors").is_file()
        return
    assert (run / "adapter" / "adapter_config.json").is_file()
    assert (run / "adapter" / "adapter_model.safetensors").is_file()


def expected_parameters(recipe: Recipe, base: Path) -> int:
    """How many parameters a method trains on a tiny base, by its formula; the head included."""
    method: Any = recipe.method
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if method.type == "prompt":  # an embedding for each stack of T5
        return int(2 * method.virtual_tokens * config["d_model"])
    if method.type == "prefix" and method.projection:  # embeddings, and two layers with biases that make all of T5's
        width, hidden, made = config["d_model"], method.hidden_size, 2 * config["num_layers"] * config["d_model"]
        return int(method.virtual_tokens * width + hidden * (width + 1) + made * (hidden + 1))
    if method.type == "supertuning":  # of each square of weights a share, beside a LoRA, and DistilBERT's head
        width, modules, labels = config["dim"], config["n_layers"] * len(method.targets), len(recipe.data.labels)
        each = int(width * width * (1 - method.sparsity)) + method.r * 2 * width
        return int(modules * each + width * (width + 1) + labels * (width + 1))
    if method.type == "full":  # what is stored but the heads of BERT's own training, and the new head
        return stored_weights(base, "bert.") + len(recipe.data.labels) * (config["hidden_size"] + 1)
    return trained_parameters(recipe, base)


def stored_weights(base: Path, prefix: str) -> int:
    """The numbers in a model's file under names that begin so."""
    from safetensors import safe_open

    with safe_open(base / "model.safetensors", framework="numpy") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
    return sum(math.prod(shape) for shape in shapes)


def assert_evaluated(recipe: Recipe, evaluation: dict[str, Any] | None) -> None:
    """The task's own metrics are there, over all that was asked."""
    if recipe.task == "chat":
        assert evaluation is None
        return
    assert evaluation is not None
    if recipe.task == "summarize":
        assert evaluation["items"] == SUMMARIES
        assert all(0 <= evaluation[figure] <= 100 for figure in ("rouge1", "rouge2", "rougeL", "rougeLsum"))
        return
    asked = sum(map(kept_rows, recipe.data.eval)) or round(ROWS * (recipe.data.holdout or 0))
    assert evaluation["items"] == asked
    assert all(0 <= evaluation[figure] <= 1 for figure in ("accuracy", "macro_precision", "macro_recall", "macro_f1"))
    assert evaluation["labels"] == recipe.data.labels
    assert sum(map(sum, evaluation["confusion"])) == asked


def kept_rows(source: DataSource) -> int:
    """The rows of a local file whose labels the source does not leave out."""
    rows = [json.loads(line) for line in Path(source.source).read_text(encoding="utf-8").splitlines()]
    values = [str(row[source.columns.get("label", "label")]) for row in rows]
    return sum(source.labels.get(value, value) is not None for value in values)
