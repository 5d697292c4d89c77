"""`edgetune data check`: what it counts on data whose facts are known, and the exit code on leakage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny_tasks import LABELS, TEMPLATE, TEXTS, save_tiny

from edgetune.data.check import check_data
from edgetune.data.load import load_data
from edgetune.data.meter import WORDS, Meter, word_offsets
from edgetune.data.template import ChatTemplate
from edgetune.data.tokenize import tokenize_examples
from edgetune.recipe.data import Data, DataSource, Percentile
from edgetune.recipe.load import load_recipe
from edgetune.training.prepare import prepare

LONG = "one two three four five six seven eight nine ten eleven twelve"


def write(file: Path, rows: list[tuple[str, str]], answer: str = "label") -> Path:
    file.write_text("".join(json.dumps({"text": text, answer: value}) + "\n" for text, value in rows))
    return file


def labelled(file: Path, **options: Any) -> DataSource:
    return DataSource(source=str(file), format="text-label", **options)


def count_words(text: str) -> list[int]:
    """A token for each word."""
    return [1] * len(word_offsets(text))


def report_on(
    train: list[tuple[str, str]], evaluation: list[tuple[str, str]], folder: Path, meter: Meter = WORDS, **more: Any
):
    data = Data(
        train=[labelled(write(folder / "train.jsonl", train))],
        eval=[labelled(write(folder / "eval.jsonl", evaluation))] if evaluation else [],
        labels=list(LABELS),
        prompt="Q: {text}",
        **more,
    )
    return check_data(load_data(data, "classify"), data, meter)


def test_rows_that_are_the_same_but_for_case_and_punctuation_leak(tmp_path: Path) -> None:
    report = report_on([("so fine", "good"), ("so bad", "bad")], [("So, FINE!", "good"), ("other", "bad")], tmp_path)
    assert report.leaks
    (leak,) = report.overlap.shown
    assert (report.overlap.exact, report.overlap.near) == (1, 0)
    assert leak.evaluation == f"{tmp_path / 'eval.jsonl'}:1"
    assert leak.train == f"{tmp_path / 'train.jsonl'}:1"
    assert (leak.similarity, leak.text) == (1.0, "So, FINE!")


def test_nearly_the_same_leaks_too_and_a_shared_prompt_does_not(tmp_path: Path) -> None:
    report = report_on([(LONG, "good"), ("a", "bad")], [(f"{LONG} thirteen", "good"), ("b", "bad")], tmp_path)
    assert (report.overlap.exact, report.overlap.near) == (0, 1)
    assert report.overlap.shown[0].similarity == round(11 / 12, 3)
    assert not report_on([("a b", "good")], [("a c", "good")], tmp_path).leaks


def test_duplicates_conflicts_and_empty_rows_are_named(tmp_path: Path) -> None:
    rows = [("Fine.", "good"), ("fine", "bad"), ("fine!", "good"), (" ", "bad"), ("", "good"), ("mud", "bad")]
    train = report_on(rows, [], tmp_path).train
    file = tmp_path / "train.jsonl"
    assert (train.duplicates.count, train.conflicts.count, train.empty.count) == (2, 1, 2)
    assert train.duplicates.shown == (f"{file}:2 is {file}:1 (bad)", f"{file}:3 is {file}:1 (good)")
    assert train.conflicts.shown == (f"{file}:1 (good), {file}:2 (bad)",)
    assert train.empty.shown == (f"{file}:4", f"{file}:5")
    assert train.labels == {"good": 3, "bad": 3}


def test_copies_by_weight_and_balance_are_no_duplicates(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", [("a", "good"), ("b", "bad"), ("c", "bad")])
    data = Data(train=[labelled(file, weight=2)], labels=list(LABELS), prompt="{text}", balance="oversample")
    report = check_data(load_data(data, "classify"), data, WORDS)
    assert (report.train.examples, report.unbalanced, report.train.labels) == (8, 6, {"good": 4, "bad": 4})
    assert report.train.duplicates.count == 0


def test_without_a_tokenizer_words_are_counted_and_cuts_are_not(tmp_path: Path) -> None:
    rows = [(" ".join("x" * length), "good") for length in range(1, 101)]
    report = report_on(rows, [("y", "bad")], tmp_path, max_source_length=5)
    assert report.unit == "words"
    assert report.train.lengths["text"] == {"50": 50, "80": 80, "90": 90, "95": 95, "99": 99, "max": 100}
    assert report.train.lengths["example"]["max"] == 102
    assert report.train.cuts == ()


def test_cuts_are_those_of_training_and_evaluation_takes_its_limits(tmp_path: Path) -> None:
    template = ChatTemplate(TEMPLATE, bos_token="", eos_token="")

    meter = Meter("tokens", word_offsets, lambda rows, limit: tokenize_examples(rows, template, count_words, limit))
    rows = [(" ".join("x" * length), "good") for length in (1, 2, 3, 4, 10)]
    report = report_on(
        rows, [(LONG, "bad")], tmp_path, meter, max_source_length=Percentile(percentile=80), max_length=8
    )
    assert report.evaluation is not None
    source, whole = report.train.cuts
    assert (source.field, source.limit_tokens, source.cut, source.lost_tokens) == ("data.max_source_length", 4, 1, 6)
    assert (whole.field, whole.limit_tokens, whole.cut, whole.dropped) == ("data.max_length", 8, 0, 0)
    assert report.train.lengths["text"]["max"] == 10
    assert report.train.lengths["example"]["max"] == len(word_offsets("<user> Q: x x x x<end><assistant> good<end>"))
    assert (report.evaluation.cuts[0].limit_tokens, report.evaluation.cuts[0].lost_tokens) == (4, 8)


def test_texts_and_summaries_are_measured_and_cut_by_themselves(tmp_path: Path) -> None:
    rows = [(" ".join("x" * length), " ".join("y" * (length % 3 + 1))) for length in range(1, 11)]
    file = write(tmp_path / "train.jsonl", rows, "summary")
    data = Data(
        train=[DataSource(source=str(file), format="text-summary")],
        prompt="Sum up: {text}",
        max_source_length=6,
        max_target_length=Percentile(percentile=50),
    )
    template = ChatTemplate(TEMPLATE, bos_token="", eos_token="")
    meter = Meter("tokens", word_offsets, lambda rows, limit: tokenize_examples(rows, template, count_words, limit))
    train = check_data(load_data(data, "summarize"), data, meter).train
    assert (train.lengths["text"]["max"], train.lengths["summary"]["max"]) == (10, 3)
    source, target, whole = train.cuts
    assert (source.limit_tokens, source.cut, source.lost_tokens) == (6, 4, 4 + 3 + 2 + 1)
    assert (target.field, target.limit_tokens, target.cut, target.lost_tokens) == ("data.max_target_length", 2, 3, 3)
    assert (whole.limit_tokens, whole.cut) == (1024, 0)
    assert train.labels == {}


def test_training_emotions_have_31_duplicate_texts(shared_data: Path, tmp_path: Path) -> None:
    lines = (shared_data / "dair_emotion" / "train.txt").read_text(encoding="utf-8").split("\n")[1:]
    rows = [(text, label) for text, _, label in (line.rpartition(";") for line in lines if line)]
    data = Data(
        train=[labelled(write(tmp_path / "train.jsonl", rows))],
        labels=["sadness", "joy", "love", "anger", "fear", "surprise"],
        prompt="emotion: {text}",
    )
    train = check_data(load_data(data, "classify"), data, WORDS).train
    counts = {"joy": 5362, "sadness": 4666, "anger": 2159, "fear": 1937, "love": 1304, "surprise": 572}
    assert (train.examples, train.labels) == (16000, counts)
    assert len(rows) - len({text for text, _ in rows}) == 31
    assert train.duplicates.count == 31


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_tiny("LlamaForCausalLM", folder / "decoder")
    save_tiny("T5ForConditionalGeneration", folder / "t5")
    save_tiny("BertForMaskedLM", folder / "bert")
    return folder


def recipe_file(folder: Path, base: Path | str, task: str, head: str = "lm", **data: Any) -> Path:
    summaries = task == "summarize"
    write(folder / "train.jsonl", [(text, label) for text, label in TEXTS], "summary" if summaries else "label")
    recipe = {
        "name": "checked",
        "task": task,
        "base": {"model": str(base), "head": head},
        "data": {
            "train": [{"source": "train.jsonl", "format": "text-summary" if summaries else "text-label"}],
            "prompt": "Is this good or bad? {text}",
            **({} if summaries else {"labels": list(LABELS)}),
            **data,
        },
        "method": {"type": "lora"},
    }
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(recipe))
    return file


@pytest.mark.parametrize(
    ("base", "task", "head", "measured"),
    [
        ("decoder", "classify", "lm", {"text", "example"}),
        ("t5", "summarize", "lm", {"text", "summary", "example", "answer"}),
        ("bert", "classify", "classification", {"text", "example"}),
    ],
)
def test_lengths_are_those_that_the_base_reads(
    edgetune_command: Callable[..., Any],
    models: Path,
    tmp_path: Path,
    base: str,
    task: str,
    head: str,
    measured: set[str],
) -> None:
    from transformers import AutoTokenizer

    seen = edgetune_command("data", "check", recipe_file(tmp_path, models / base, task, head), "--json")
    document = json.loads(seen.stdout)
    tokenizer = AutoTokenizer.from_pretrained(models / base)
    prompts = [f"Is this good or bad? {text}" for text, _ in TEXTS]
    if base == "decoder":
        asked = [
            tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)[
                "input_ids"
            ]
            for prompt in prompts
        ]
        answers = tokenizer([f"{label}<end>" for _, label in TEXTS])["input_ids"]
        ids = [prompt + answer for prompt, answer in zip(asked, answers, strict=True)]
    else:
        ids = tokenizer(prompts)["input_ids"]
    assert (seen.exit_code, document["unit"], document["leaks"]) == (0, "tokens", False)
    assert document["train"]["lengths"].keys() == measured
    assert document["train"]["lengths"]["example"]["max"] == max(map(len, ids))
    assert document["train"]["cuts"][-1]["cut"] == 0


@pytest.mark.parametrize(("template", "tells"), [("endless", True), ("chat", False), ("alpaca", False)])
def test_answers_that_end_in_no_end_token_are_told_before_anything_is_trained(
    template: str,
    tells: bool,
    edgetune_command: Callable[..., Any],
    models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    endless = tmp_path / "endless.jinja"
    endless.write_text(TEMPLATE.replace("<end>", "\n"))
    file = recipe_file(
        tmp_path, models / "decoder", "classify", template=str(endless) if template == "endless" else template
    )
    told = f"{len(TEXTS)} of {len(TEXTS)} %sexamples have an answer without an end token"
    said = " ".join(edgetune_command("data", "check", file).stdout.split())
    assert (told % "" in said) == tells
    assert ("{{ eos_token }} after an answer" in said) == tells
    document = json.loads(edgetune_command("data", "check", file, "--json").stdout)
    assert document["train"]["unended"] == len(TEXTS) * tells
    capsys.readouterr()
    prepare(load_recipe(file, []))
    assert (told % "training " in " ".join(capsys.readouterr().err.split())) == tells


def test_leakage_ends_with_1_and_names_the_rows(
    edgetune_command: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    file = recipe_file(tmp_path, models / "decoder", "classify")
    evaluated = f"data.eval=[{{source: {tmp_path / 'train.jsonl'}, split: 'train[:3]', format: text-label}}]"
    seen = edgetune_command("data", "check", file, "-s", evaluated)
    assert seen.exit_code == 1
    assert "LEAKAGE" in seen.stdout
    assert "evaluation rows in the training data: 3 exactly, 0 nearly" in seen.stdout
    assert f"{tmp_path / 'train.jsonl'}:1 is {tmp_path / 'train.jsonl'}:1" in seen.stdout


def test_a_holdout_does_not_leak(edgetune_command: Callable[..., Any], models: Path, tmp_path: Path) -> None:
    file = recipe_file(tmp_path, models / "decoder", "classify", holdout=6, balance="undersample")
    seen = edgetune_command("data", "check", file)
    assert seen.exit_code == 0, seen.stdout
    assert "held out of train for evaluation: 6" in seen.stdout
    assert "18 training examples, 6 evaluation examples" in seen.stdout
    assert "NO LEAKAGE" in seen.stdout


def test_a_base_that_is_not_at_hand_is_said(edgetune_command: Callable[..., Any], tmp_path: Path) -> None:
    seen = edgetune_command("data", "check", recipe_file(tmp_path, tmp_path / "nowhere", "classify"))
    assert seen.exit_code == 0, seen.stderr
    assert "lengths are counted in words, because the base's tokenizer is not available" in seen.stderr
    assert "words needed by" in seen.stdout


def test_the_shipped_demo_does_not_leak(edgetune_command: Callable[..., Any], smollm2_gguf: Path) -> None:
    seen = edgetune_command("data", "check", "demo", "--json")
    document = json.loads(seen.stdout)
    assert (seen.exit_code, document["unit"], document["recipe"]) == (0, "tokens", "demo")
    assert document["overlap"] == {"exact": 0, "near": 0, "shown": []}


def test_a_check_needs_no_torch(run_python: Callable[[str], str], models: Path, tmp_path: Path) -> None:
    file = recipe_file(tmp_path, models / "decoder", "classify")
    program = (
        f"import sys; sys.argv = ['edgetune', 'data', 'check', {str(file)!r}]\n"
        "from edgetune.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: print(['torch' in sys.modules, 'transformers' in sys.modules])"
    )
    assert run_python(program).endswith("[False, False]")
