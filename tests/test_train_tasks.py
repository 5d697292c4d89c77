"""What a recipe may ask of training beside its method: tasks, kinds of models, types of weights, packing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.tiny_tasks import LABELS, PROMPT, TEXTS, save_tiny, write_rows

from edgetune.errors import RecipeError
from edgetune.recipe.load import load_recipe
from edgetune.training.run import train
from edgetune.training.run_directory import RunDirectory


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    classes = {"llama": "LlamaForCausalLM", "t5": "T5ForConditionalGeneration", "bert": "DistilBertForMaskedLM"}
    flan = {"t5": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}}
    return {name: save_tiny(cls, folder / name, **flan.get(name, {})) for name, cls in classes.items()}


@pytest.fixture
def run_recipe(tmp_path: Path, bases: dict[str, Path], no_plots: None):
    """Trains a small recipe on one of the bases and gives its run directory and summary."""

    def run(family: str, task: str, out: str = "run", /, *, summaries: bool = False, **sections: Any):
        rows = write_rows(tmp_path / f"{task}.jsonl", summaries=summaries)
        form = {"classify": "text-label", "summarize": "text-summary", "chat": "prompt-completion"}[task]
        source: dict[str, Any] = {"source": str(rows), "format": form}
        if task == "chat":
            source["columns"] = {"prompt": "text", "completion": "label"}
        values: dict[str, Any] = {
            "name": "tiny",
            "task": task,
            "base": {"model": str(bases[family]), "dtype": "float32"},
            "data": {"train": [source], "eval": [source], "max_length": 64},
            "method": {"type": "lora", "rank": 4, "alpha": 8},
            "train": {"batch_size": 8, "epochs": 4, "learning_rate": 1e-2, "log_every": 4},
        }
        if task == "classify":
            values["data"]["labels"] = list(LABELS)
        if task != "chat":
            values["data"]["prompt"] = "summarize: {text}" if task == "summarize" else PROMPT
        for section, changes in sections.items():
            merge = isinstance(values.get(section), dict) and "type" not in changes
            values[section] = {**values[section], **changes} if merge else changes
        file = tmp_path / "tiny.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        return RunDirectory(tmp_path / out), train(load_recipe(str(file)), tmp_path / out)

    return run


def losses(run: RunDirectory) -> list[float]:
    return [row["loss"] for row in run.read_metrics() if "loss" in row]


@pytest.mark.parametrize(
    ("base", "head"),
    [("llama", "lm"), ("llama", "classification"), ("t5", "lm"), ("t5", "classification"), ("bert", "classification")],
)
def test_every_kind_of_model_learns_to_classify(run_recipe, base: str, head: str):
    run, summary = run_recipe(
        base,
        "classify",
        base={"head": head},
        method={"type": "full"},
        train={"epochs": 16, "eval_every": 16, "learning_rate": 5e-3},
    )
    assert summary.evaluation is not None
    assert summary.evaluation["accuracy"] > 0.9
    assert summary.evaluation["labels"] == list(LABELS)
    assert sum(map(sum, summary.evaluation["confusion"])) == len(TEXTS)
    evaluations = [row for row in run.read_metrics() if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [16, 32, 48]
    assert evaluations[-1]["eval_accuracy"] == summary.evaluation["accuracy"]


@pytest.mark.parametrize("base", ["llama", "t5"])
def test_decoders_and_encoder_decoders_learn_to_summarize(run_recipe, base: str):
    _, summary = run_recipe(
        base,
        "summarize",
        summaries=True,
        data={"max_target_length": 12},
        train={"epochs": 16, "learning_rate": 2e-2, "eval_limit": 6},
    )
    assert summary.evaluation is not None
    assert summary.evaluation["items"] == 6
    assert summary.evaluation["rouge1"] > 60


def test_an_encoder_cannot_write_and_says_what_to_set(run_recipe):
    with pytest.raises(RecipeError, match=r"base.head: .*is an encoder \(distilbert\).*set it to classification"):
        run_recipe("bert", "classify")


def test_an_encoder_decoder_holds_no_conversations(run_recipe):
    with pytest.raises(RecipeError, match=r"task: .*encoder-decoder \(t5\).*summarize or classify"):
        run_recipe("t5", "chat")


def test_texts_longer_than_an_encoders_positions_are_cut(run_recipe, tmp_path: Path):
    base = save_tiny("DistilBertForMaskedLM", tmp_path / "short", max_position_embeddings=6)
    run, summary = run_recipe(
        "bert", "classify", base={"model": str(base), "head": "classification"}, data={"max_length": 1024}
    )
    assert summary.train_tokens <= 4 * 6 * len(TEXTS)
    assert losses(run)


def test_every_weight_can_be_trained_and_the_run_holds_a_whole_model(run_recipe, bases: dict[str, Path]):
    from transformers import AutoModelForCausalLM

    run, summary = run_recipe("llama", "classify", method={"type": "full"}, train={"epochs": 1})
    assert summary.trainable_parameters == summary.total_parameters
    assert not run.adapter.exists()
    before = AutoModelForCausalLM.from_pretrained(bases["llama"]).state_dict()
    after = AutoModelForCausalLM.from_pretrained(run.model).state_dict()
    assert all(not torch.equal(before[name], tensor) for name, tensor in after.items() if "proj" in name)


def test_a_run_of_whole_weights_merges_and_refuses_another_base(run_recipe, tmp_path: Path):
    from edgetune.errors import AdapterError
    from edgetune.weights.merge import merge
    from edgetune.weights.source import resolve_source

    run, _ = run_recipe("llama", "classify", method={"type": "full"}, train={"epochs": 1})
    merge(resolve_source(str(run.path)), tmp_path / "merged")
    trained, merged = (load_file(folder / "model.safetensors") for folder in (run.model, tmp_path / "merged"))
    assert all(torch.equal(tensor, merged[name]) for name, tensor in trained.items())
    with pytest.raises(AdapterError, match="every weight of its model was trained"):
        resolve_source(str(run.path), base="owner/name")


def test_adapters_of_16_bits_take_the_course_of_those_of_32(run_recipe):
    courses = {}
    for dtype in ("float32", "bfloat16"):
        run, _ = run_recipe(
            "llama",
            "classify",
            dtype,
            base={"dtype": "bfloat16"},
            train={"adapter_dtype": dtype, "epochs": 6, "learning_rate": 1e-2, "log_every": 1},
        )
        tensors = load_file(run.adapter / "adapter_model.safetensors")
        assert {str(tensor.dtype) for tensor in tensors.values()} == {f"torch.{dtype}"}
        courses[dtype] = losses(run)
    assert courses["bfloat16"] == pytest.approx(courses["float32"], rel=0.03)
    assert courses["bfloat16"][-1] < courses["bfloat16"][0] - 0.3


def test_adapters_have_32_bits_on_a_base_that_has(run_recipe):
    run, _ = run_recipe("llama", "classify", train={"max_steps": 1})
    assert {str(tensor.dtype) for tensor in load_file(run.adapter / "adapter_model.safetensors").values()} == {
        "torch.float32"
    }


def test_a_quantized_base_does_not_narrow_its_adapter(run_recipe):
    run, _ = run_recipe("llama", "classify", base={"quantize": "nf4"}, train={"max_steps": 1})
    assert {str(tensor.dtype) for tensor in load_file(run.adapter / "adapter_model.safetensors").values()} == {
        "torch.float32"
    }


def test_packed_rows_see_each_example_once_an_epoch(run_recipe):
    plain, _ = run_recipe("llama", "chat", "plain", train={"epochs": 1})
    packed, summary = run_recipe(
        "llama", "chat", "packed", data={"max_length": 40}, train={"epochs": 1, "packing": True, "batch_size": 2}
    )
    tokens = [run.read_metrics()[-1]["tokens"] for run in (plain, packed)]
    assert tokens[0] == tokens[1]
    assert summary.steps < len(TEXTS) / 2
    assert json.loads(packed.summary.read_text())["supervised_tokens"] == summary.supervised_tokens


def test_packing_is_refused_where_it_is_not_proven(run_recipe, tmp_path: Path):
    base = save_tiny("Gemma2ForCausalLM", tmp_path / "gemma")
    with pytest.raises(RecipeError, match=r"train.packing: .*tested only for .*gemma2"):
        run_recipe("llama", "chat", base={"model": str(base)}, train={"packing": True})


def test_class_weights_change_the_training_and_not_the_evaluation(run_recipe, tmp_path: Path):
    rows = [{"text": text, "label": label} for text, label in TEXTS[:9] + TEXTS[-3:]]
    file = tmp_path / "uneven.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    source = {"source": str(file), "format": "text-label"}
    settings = {"max_steps": 1, "batch_size": 12, "learning_rate": 1e-9}
    (plain, before), (weighted, after) = (
        run_recipe(
            "llama",
            "classify",
            name,
            base={"head": "classification"},
            data={"train": [source], "eval": [source]},
            train={**settings, "class_weights": name},
        )
        for name in ("none", "balanced")
    )
    assert losses(plain) != losses(weighted)
    assert before.eval_loss == pytest.approx(after.eval_loss, rel=1e-6)


@pytest.mark.parametrize(("base", "head"), [("llama", "lm"), ("bert", "classification")])
def test_an_evaluation_on_the_way_changes_nothing_of_the_training(run_recipe, base: str, head: str):
    courses = [
        losses(
            run_recipe(
                base,
                "classify",
                f"every-{every}",
                base={"head": head},
                method={"type": "lora", "rank": 4, "alpha": 8, "dropout": 0.3},
                train={"max_steps": 3, "log_every": 1, "eval_every": every},
            )[0]
        )
        for every in (None, 1)
    ]
    assert courses[0] == courses[1]


def test_a_loftq_run_is_folded_into_the_base_as_it_was_trained(run_recipe, bases: dict[str, Path], tmp_path: Path):
    from edgetune.weights.merge import merge
    from edgetune.weights.source import resolve_source

    run, _ = run_recipe(
        "llama",
        "classify",
        base={"quantize": "nf4"},
        method={"type": "lora", "rank": 16, "alpha": 16, "init": "loftq", "targets": "all-linear"},
        train={"max_steps": 1, "learning_rate": 1e-9},
    )
    merge(resolve_source(str(run.path)), tmp_path / "merged")
    merged, original = (load_file(folder / "model.safetensors") for folder in (tmp_path / "merged", bases["llama"]))
    name = "model.layers.0.mlp.up_proj.weight"
    # What NF4 lost is made up for: folded into the unrounded base, it would be there twice.
    off = (merged[name] - original[name]).norm() / original[name].norm()
    assert 0 < off < 0.05
