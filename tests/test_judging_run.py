"""The judge from end to end: with stub models, whose answers are known, and once with SmolLM2 in llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from edgetune.data.example import Message
from edgetune.errors import DataError, EdgetuneError, ModelError, NumericalError, OutputError, UsageError
from edgetune.judging.confusion import Panel, panels_of
from edgetune.judging.gate import Outcome
from edgetune.judging.judgement import Judgement
from edgetune.judging.picture import draw_matrices
from edgetune.judging.run import judge_model
from edgetune.judging.subject import Predict
from edgetune.judging.suite import Suite, load_suite
from edgetune.judging.terminal import render_matrices, render_metrics, render_verdict
from edgetune.metrics.classification import measure_classification
from edgetune.runtime.classify import Prediction

LABELS = ["negative", "neutral", "positive"]
Answer = Callable[[int, str], str | None]
"""From an item's number and gold label to what a stub model says."""


def always_right(number: int, gold: str) -> str | None:
    return gold


def always_positive(number: int, gold: str) -> str | None:
    return "positive"


def wrong_on(*numbers: int) -> Answer:
    return lambda number, gold: ("positive" if gold == "negative" else "negative") if number in numbers else gold


def silent_on(*numbers: int) -> Answer:
    return lambda number, gold: None if number in numbers else gold


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return write_suite(tmp_path)


def write_suite(folder: Path, items: int = 60, **changes: Any) -> Suite:
    rows = [{"text": f"{number} {LABELS[number % 3]}", "label": LABELS[number % 3]} for number in range(items)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "name": "numbers",
        "task": "classify",
        "data": [{"source": "items.jsonl", "format": "text-label"}],
        "labels": LABELS,
        "prompt": "{text}",
        **changes,
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(values))
    return load_suite(str(folder / "suite.yaml"))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Answer], Path]:
    """Make stub models: files that begin like a GGUF, and answers instead of llama.cpp."""
    answers: dict[Path, Answer] = {}

    @contextmanager
    def open_stub(path: Path, suite: Suite, *, threads: int | None = None) -> Iterator[Predict]:
        def predict(messages: Sequence[Message]) -> Prediction:
            number, gold = messages[-1].content.split()
            label = answers[path](int(number), gold)
            if suite.scoring == "generate":
                return Prediction(label, None, label or "I would rather not say | _that_")
            return Prediction(label, {name: -0.1 if name == label else -3.0 for name in suite.labels}, None)

        yield predict

    monkeypatch.setattr("edgetune.judging.evaluate.open_subject", open_stub)

    def make(name: str, answer: Answer) -> Path:
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(b"GGUF" + name.encode())
        answers[path] = answer
        return path

    return make


def complaint(kind: type[EdgetuneError], suite: Suite, *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        judge_model(suite, *arguments, **options)
    return str(caught.value)


def shown(*renderables: Any, width: int = 80) -> str:
    console = Console(width=width, soft_wrap=True, highlight=False)
    with console.capture() as capture:
        for renderable in renderables:
            console.print(renderable)
    return capture.get()


def test_a_better_candidate_passes(suite: Suite, model: Any) -> None:
    judgement = judge_model(suite, model("new", always_right), model("old", always_positive))
    assert judgement.verdict is not None
    assert judgement.verdict.outcome is Outcome.PASS
    assert judgement.exit_code == 0
    assert judgement.verdict.difference == pytest.approx(2 / 3)
    assert judgement.candidate.metrics.accuracy == 1
    assert judgement.baseline is not None
    assert judgement.baseline.metrics.confusion == ((0, 0, 20, 0), (0, 0, 20, 0), (0, 0, 20, 0))


def test_a_worse_candidate_is_a_regression(suite: Suite, model: Any) -> None:
    judgement = judge_model(suite, model("new", wrong_on(*range(10))), model("old", always_right))
    assert judgement.verdict is not None
    assert judgement.verdict.outcome is Outcome.REGRESSION
    assert judgement.exit_code == 1


def test_a_candidate_about_as_good_is_inconclusive_on_few_items(suite: Suite, model: Any) -> None:
    judgement = judge_model(suite, model("new", wrong_on(1)), model("old", wrong_on(2)))
    assert judgement.exit_code == 3


def test_without_a_baseline_nothing_is_compared(suite: Suite, model: Any) -> None:
    judgement = judge_model(suite, model("new", always_positive))
    assert judgement.verdict is None
    assert judgement.exit_code == 0
    assert "Nothing was compared" in shown(render_verdict(judgement.verdict))


def test_an_unparsed_answer_is_wrong_and_has_its_own_column(tmp_path: Path, model: Any) -> None:
    suite = write_suite(tmp_path, scoring="generate")
    judgement = judge_model(suite, model("new", silent_on(0, 1, 3)), model("old", always_right))
    assert judgement.candidate.metrics.unparsed == 3
    assert judgement.candidate.metrics.accuracy == 57 / 60
    assert "unparsed" in shown(render_matrices(panels_of(judgement)))


def test_the_terminal_shows_matrices_side_by_side_on_80_columns_and_stacks_them_on_40(suite: Suite, model: Any) -> None:
    judgement = judge_model(suite, model("new", always_right), model("old", always_positive))
    assert any(line.split() == ["negative", "0", "0", "20", "negative", "20", "0", "0"] for line in _wide(judgement))
    stacked = shown(render_matrices(panels_of(judgement)), width=40)
    assert stacked.index("baseline: old.gguf") < stacked.index("candidate: new.gguf")
    assert "unparsed" not in stacked
    assert "+66.7" in shown(render_metrics(judgement))


def _wide(judgement: Judgement) -> list[str]:
    return shown(render_matrices(panels_of(judgement)), width=80).splitlines()


def test_the_report_holds_verdict_metrics_matrices_and_what_got_worse(tmp_path: Path, suite: Suite, model: Any) -> None:
    out = tmp_path / "report"
    judge_model(suite, model("new", wrong_on(*range(10))), model("old", always_right), out)
    assert sorted(file.name for file in out.iterdir()) == ["confusion.png", "report.json", "report.md"]

    document = json.loads((out / "report.json").read_text())
    assert document["verdict"]["outcome"] == "REGRESSION"
    assert document["exit_code"] == 1
    assert document["candidate"]["metrics"]["accuracy"] == pytest.approx(50 / 60)
    assert document["candidate"]["accuracy_interval"]["confidence"] == 0.95
    assert len(document["candidate"]["items"]) == len(document["baseline"]["items"]) == 60
    first = document["candidate"]["items"][0]
    assert (first["id"], first["gold"], first["predicted"]) == ("1", "negative", "positive")
    assert first["log_probabilities"]["positive"] == -0.1

    markdown = (out / "report.md").read_text()
    assert markdown.startswith("# REGRESSION: new.gguf on numbers\n\nAccuracy changed by −16.7 points")
    assert "| accuracy | 100.0 % | 83.3 % | −16.7 |" in markdown
    assert "| negative | 20 | 0 | 0 |" in markdown
    worse = markdown.split("## Items that got worse")[1].split("##")[0]
    assert worse.count("items.jsonl:") == 10
    assert "| 1 | items.jsonl:1 | 0 negative | negative | negative | positive |" in worse

    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_shows_unreadable_answers_as_text_not_as_markup(tmp_path: Path, model: Any) -> None:
    suite = write_suite(tmp_path, scoring="generate")
    judge_model(suite, model("new", silent_on(0)), model("old", always_right), tmp_path / "report")
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert r"unparsed: I would rather not say \| \_that\_" in markdown


def test_a_report_without_baseline_says_so_first(tmp_path: Path, suite: Suite, model: Any) -> None:
    judge_model(suite, model("new", always_right), out=tmp_path / "report")
    assert (tmp_path / "report" / "report.md").read_text().startswith("# Not compared: new.gguf on numbers\n")
    assert json.loads((tmp_path / "report" / "report.json").read_text())["verdict"] is None


def test_an_earlier_report_is_as_good_as_the_baseline_itself(tmp_path: Path, suite: Suite, model: Any) -> None:
    old, new = model("old", wrong_on(1, 2)), model("new", wrong_on(*range(20)))
    fresh = judge_model(suite, new, old)
    judge_model(suite, old, out=tmp_path / "old")
    old.unlink()
    stored = judge_model(suite, new, tmp_path / "old" / "report.json")
    assert stored.verdict == fresh.verdict
    assert stored.baseline is not None
    assert fresh.baseline is not None
    assert stored.baseline.metrics == fresh.baseline.metrics


@pytest.mark.parametrize(
    ("changes", "different"),
    [
        ({"prompt": "Mood? {text}"}, "another prompt"),
        ({"scoring": "generate"}, "another scoring"),
        ({"items": 59}, "another data"),
        ({"labels": LABELS[::-1], "items": 30}, "another data and another labels"),
    ],
)
def test_a_report_of_another_suite_is_refused_by_what_differs(
    tmp_path: Path, suite: Suite, model: Any, changes: dict[str, Any], different: str
) -> None:
    judge_model(suite, model("old", always_right), out=tmp_path / "old")
    changed = write_suite(tmp_path, **changes)
    message = complaint(DataError, changed, model("new", always_right), tmp_path / "old" / "report.json")
    assert different in message
    assert "report.json" in message


def test_a_renamed_suite_with_another_gate_can_use_an_earlier_report(tmp_path: Path, suite: Suite, model: Any) -> None:
    judge_model(suite, model("old", always_right), out=tmp_path / "old")
    renamed = write_suite(tmp_path, name="renamed", gate={"margin": 0.5})
    assert judge_model(renamed, model("new", wrong_on(1)), tmp_path / "old" / "report.json").exit_code == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{broken", "cannot be read as a report"),
        ('{"accuracy": 1}', "is not a report of edgetune judge"),
        ("[]", "is not a report of edgetune judge"),
        (None, "cannot be read as a report"),
    ],
)
def test_a_file_that_is_no_report_is_refused_as_baseline(
    tmp_path: Path, suite: Suite, model: Any, content: str | None, words: str
) -> None:
    report = tmp_path / "report.json"
    if content is not None:
        report.write_text(content)
    assert words in complaint(DataError, suite, model("new", always_right), report)


@pytest.mark.parametrize("damage", ["items", "metrics"])
def test_a_damaged_report_is_refused_as_baseline(tmp_path: Path, suite: Suite, model: Any, damage: str) -> None:
    old, new = model("old", always_right), model("new", always_right)
    judge_model(suite, old, out=tmp_path / "old")
    report = tmp_path / "old" / "report.json"
    document = json.loads(report.read_text())
    if damage == "items":
        document["candidate"]["items"].pop()
    else:
        del document["candidate"]["metrics"]["macro_f1"]
    report.write_text(json.dumps(document))
    message = complaint(DataError, suite, new, report)
    assert "damaged" in message
    assert damage in message


def test_a_missing_model_is_named_with_the_way_to_make_one(tmp_path: Path, suite: Suite, model: Any) -> None:
    message = complaint(ModelError, suite, tmp_path / "nowhere.gguf")
    assert "nowhere.gguf: there is no such file" in message
    assert "edgetune export" in message
    assert "gone.gguf" in complaint(ModelError, suite, model("new", always_right), tmp_path / "gone.gguf")


def test_a_run_directory_or_another_file_must_be_exported_first(tmp_path: Path, suite: Suite) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    for path in ("runs", "model.safetensors"):
        message = complaint(UsageError, suite, tmp_path / path)
        assert path in message
        assert "edgetune export" in message


def test_one_item_can_be_judged_but_not_compared(tmp_path: Path, model: Any) -> None:
    suite, new = write_suite(tmp_path, items=1), model("new", always_right)
    assert judge_model(suite, new).candidate.metrics.accuracy == 1
    assert "at least 2" in complaint(DataError, suite, new, new)


def test_a_log_probability_that_is_no_number_is_refused(
    suite: Suite, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def open_broken(path: Path, suite: Suite, *, threads: int | None = None) -> Iterator[Predict]:
        yield lambda messages: Prediction("neutral", dict.fromkeys(LABELS, float("nan")), None)

    new = model("new", always_right)
    monkeypatch.setattr("edgetune.judging.evaluate.open_subject", open_broken)
    message = complaint(NumericalError, suite, new)
    assert "items.jsonl:1 is nan" in message


def test_an_existing_report_is_kept_unless_forced_and_refused_before_any_model_is_asked(
    tmp_path: Path, suite: Suite, model: Any
) -> None:
    asked: list[int] = []

    def listen(number: int, gold: str) -> str | None:
        asked.append(number)
        return gold

    new, out = model("new", listen), tmp_path / "report"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    message = complaint(OutputError, suite, new, out=out)
    assert "--force" in message
    assert not asked
    assert (out / "mine.txt").exists()
    judge_model(suite, new, out=out, force=True)
    assert (out / "report.json").exists()
    assert asked


@pytest.mark.parametrize("labels", [["a", "b"], ["$x", "x$", "a rather long label", "[bold]"]])
def test_matrices_are_drawn_and_rendered_whatever_labels_and_names_look_like(tmp_path: Path, labels: list[str]) -> None:
    metrics = measure_classification(labels * 3, [*labels * 2, *[None] * len(labels)], labels)
    panels = [Panel(f"candidate: {'model-$-' * 20}.gguf", metrics)]
    draw_matrices(panels, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    assert all(label in shown(render_matrices(panels), width=200) for label in labels)


@pytest.mark.parametrize("scoring", ["likelihood", "generate"])
def test_a_real_model_is_judged_in_llama_cpp(tmp_path: Path, smollm2_gguf: Path, scoring: str) -> None:
    shipped = load_suite("sentiment-demo")
    source = shipped.data[0].model_copy(update={"split": "[:12]"})
    suite = shipped.model_copy(update={"data": [source], "scoring": scoring})
    judgement = judge_model(suite, smollm2_gguf, out=tmp_path / "base", threads=1)
    assert judgement.candidate.metrics.items == 12
    for item in judgement.candidate.items:
        if item.log_probabilities is None:
            assert scoring == "generate"
            assert item.answer
        else:
            assert item.predicted == max(item.log_probabilities, key=item.log_probabilities.__getitem__)
            assert max(item.log_probabilities.values()) < 0
    again = judge_model(suite, smollm2_gguf, tmp_path / "base" / "report.json", threads=1)
    assert again.verdict is not None
    assert again.verdict.outcome is Outcome.PASS
    assert [item.predicted for item in again.candidate.items] == [item.predicted for item in judgement.candidate.items]
