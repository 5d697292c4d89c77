"""Whole judgements by task metrics: verdicts, reports, stored baselines, what is refused; once with SmolLM2."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.console import Console
from scipy.stats import binomtest
from support.judged import write_outputs, write_rows

from edgetune.errors import DataError, EdgetuneError, ModelError, OutputError
from edgetune.judging.gate.gate import Outcome
from edgetune.judging.report.matrices import panels_of
from edgetune.judging.report.metrics_table import metrics_rows
from edgetune.judging.report.terminal_report import render_matrices, render_metrics, render_verdict
from edgetune.judging.results.evaluate import plan_answers
from edgetune.judging.run import judge_model
from edgetune.judging.suites.items import read_items
from edgetune.judging.suites.suite import Suite, load_suite

LABELS = ["negative", "neutral", "positive"]
Answers = Callable[[int, str], str]
"""From an item's number (from 0) and gold label to what a model says."""


def always_right(number: int, gold: str) -> str:
    return gold


def always_positive(number: int, gold: str) -> str:
    return "positive"


def wrong_on(*numbers: int) -> Answers:
    return lambda number, gold: ("positive" if gold == "negative" else "negative") if number in numbers else gold


def silent_on(*numbers: int) -> Answers:
    return lambda number, gold: "I would rather not say | _that_" if number in numbers else gold


def write_suite(folder: Path, items: int = 60, **changes: Any) -> Suite:
    rows = [
        {"text": f"{number} {LABELS[number % 3]}", "label": LABELS[number % 3], "user": f"u{number // 6}"}
        for number in range(items)
    ]
    write_rows(folder / "items.jsonl", rows)
    values = {
        "name": "numbers",
        "task": "classify",
        "data": [{"source": "items.jsonl", "format": "text-label"}],
        "labels": LABELS,
        "prompt": "{text}",
        "scoring": "generate",
        **changes,
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(values))
    return load_suite(str(folder / "suite.yaml"))


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return write_suite(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Make files of outputs, as a model that was run elsewhere leaves them."""

    def make(name: str, answer: Answers, items: int = 60) -> Path:
        return write_outputs(tmp_path / f"{name}.jsonl", [answer(n, LABELS[n % 3]) for n in range(items)])

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


def outcomes(judgement: Any) -> dict[str, Outcome]:
    return {comparison.metric: comparison.outcome for comparison in judgement.verdict.comparisons}


def test_a_better_candidate_passes(suite: Suite, model: Any) -> None:
    judgement = judge_model(suite, model("new", always_right), model("old", always_positive))
    assert judgement.exit_code == 0
    assert judgement.verdict is not None
    assert judgement.verdict.comparisons[0].difference == pytest.approx(2 / 3)
    assert judgement.candidate.metrics["accuracy"].value == 1
    assert judgement.baseline is not None
    assert judgement.baseline.classification is not None
    assert judgement.baseline.classification.confusion == ((0, 0, 20, 0), (0, 0, 20, 0), (0, 0, 20, 0))


def test_a_worse_candidate_is_a_regression(suite: Suite, model: Any) -> None:
    judgement = judge_model(suite, model("new", wrong_on(*range(10))), model("old", always_right))
    assert (judgement.exit_code, outcomes(judgement)) == (1, {"accuracy": Outcome.REGRESSION})


def test_a_candidate_about_as_good_is_inconclusive_on_few_items(suite: Suite, model: Any) -> None:
    assert judge_model(suite, model("new", wrong_on(1)), model("old", wrong_on(2))).exit_code == 3


def test_without_a_baseline_nothing_is_compared(suite: Suite, model: Any) -> None:
    judgement = judge_model(suite, model("new", always_positive))
    assert judgement.verdict is None
    assert judgement.exit_code == 0
    assert "Nothing was compared" in shown(render_verdict(judgement.verdict))


def test_an_unparsed_answer_is_wrong_and_has_its_own_column(suite: Suite, model: Any) -> None:
    judgement = judge_model(suite, model("new", silent_on(0, 1, 3)), model("old", always_right))
    assert judgement.candidate.classification is not None
    assert judgement.candidate.classification.unparsed == 3
    assert judgement.candidate.metrics["accuracy"].value == 57 / 60
    assert "unparsed" in shown(render_matrices(panels_of(judgement)))


def test_several_metrics_pass_only_together(tmp_path: Path, model: Any) -> None:
    suite = write_suite(tmp_path, gate={"metric": ["accuracy", "macro_f1"], "margin": {"macro_f1": 0.9}})
    judgement = judge_model(suite, model("new", wrong_on(1)), model("old", wrong_on(2)))
    assert outcomes(judgement) == {"accuracy": Outcome.INCONCLUSIVE, "macro_f1": Outcome.PASS}
    assert judgement.exit_code == 3
    worse = judge_model(suite, model("new", wrong_on(*range(12))), model("old", always_right))
    assert worse.exit_code == 1


def test_items_of_one_cluster_count_together(tmp_path: Path, model: Any) -> None:
    """Twelve items of two users are lost: enough for twelve users, too little for two."""
    alone = judge_model(write_suite(tmp_path), model("new", wrong_on(*range(12))), model("old", always_right))
    suite = write_suite(tmp_path, cluster="user")
    together = judge_model(suite, model("new", wrong_on(*range(12))), model("old", always_right))
    assert together.verdict is not None
    assert together.verdict.comparisons[0].clusters == 10
    assert (alone.exit_code, together.exit_code) == (1, 3)


def test_the_terminal_shows_matrices_side_by_side_on_80_columns_and_stacks_them_on_40(suite: Suite, model: Any) -> None:
    judgement = judge_model(suite, model("new", always_right), model("old", always_positive))
    wide = shown(render_matrices(panels_of(judgement)), width=80).splitlines()
    assert any(line.split() == ["negative", "0", "0", "20", "negative", "20", "0", "0"] for line in wide)
    stacked = shown(render_matrices(panels_of(judgement)), width=40)
    assert stacked.index("baseline: old.jsonl") < stacked.index("candidate: new.jsonl")
    assert "unparsed" not in stacked
    assert "+66.7" in shown(render_metrics(judgement))


def test_the_report_holds_verdict_metrics_matrices_and_what_got_worse(tmp_path: Path, suite: Suite, model: Any) -> None:
    out = tmp_path / "report"
    judge_model(suite, model("new", wrong_on(*range(10))), model("old", always_right), out)
    files = ["confusion.png", "junit.xml", "report.html", "report.json", "report.md"]
    assert sorted(file.name for file in out.iterdir()) == files
    document = json.loads((out / "report.json").read_text())
    assert document["verdict"]["outcome"] == "REGRESSION"
    assert document["exit_code"] == 1
    assert document["candidate"]["measures"]["accuracy"]["value"] == pytest.approx(50 / 60)
    assert document["candidate"]["measures"]["accuracy"]["interval"]["confidence"] == 0.95
    assert len(document["candidate"]["answers"]) == len(document["baseline"]["answers"]) == 60
    markdown = (out / "report.md").read_text()
    assert "REGRESSION" in markdown.splitlines()[0]
    assert "−16.7" in markdown


def test_metrics_that_the_gate_does_not_compare_have_intervals_of_their_differences_too(
    tmp_path: Path, suite: Suite, model: Any
) -> None:
    judgement = judge_model(suite, model("new", wrong_on(*range(9))), model("old", wrong_on(1)), tmp_path / "report")
    assert [comparison.metric for comparison in judgement.verdict.comparisons] == ["accuracy"]
    found = {difference.metric: difference for difference in judgement.differences}
    assert list(found) == ["macro_f1", "weighted_f1"]
    for name, difference in found.items():
        sides = [side.metrics[name].value for side in (judgement.candidate, judgement.baseline)]
        assert difference.difference == pytest.approx(sides[0] - sides[1])
        assert -1 <= difference.interval.lower < difference.difference < difference.interval.upper <= 1
        assert difference.items == 60
    rows = metrics_rows(judgement)
    for title in ("Macro-F1", "Weighted F1"):
        place = next(number for number, row in enumerate(rows) if row[0] == title)
        assert re.fullmatch(r"−\d+\.\d to [−+]?\d+\.\d", rows[place + 1][-1])
    stored = json.loads((tmp_path / "report" / "report.json").read_text())["differences"]
    assert [one["metric"] for one in stored] == ["macro_f1", "weighted_f1"]


def test_a_report_from_before_differences_had_intervals_is_a_baseline_still(
    tmp_path: Path, suite: Suite, model: Any
) -> None:
    old, new = model("old", wrong_on(1)), model("new", wrong_on(*range(9)))
    judge_model(suite, old, model("older", wrong_on(2)), tmp_path / "old")
    file = tmp_path / "old" / "report.json"
    document = json.loads(file.read_text())
    del document["differences"]
    for comparison in document["verdict"]["comparisons"]:
        del comparison["smallest_margin"], comparison["unseen_share"]
    file.write_text(json.dumps(document))
    assert judge_model(suite, new, file).differences == judge_model(suite, new, old).differences


def test_an_inconclusive_verdict_tells_the_smallest_margin_everywhere(tmp_path: Path, suite: Suite, model: Any) -> None:
    out = tmp_path / "report"
    judgement = judge_model(suite, model("new", wrong_on(3)), model("old", wrong_on(1)), out)
    assert judgement.verdict.outcome is Outcome.INCONCLUSIVE
    told = "The smallest margin that these items would pass is 7.4 points."
    assert told in " ".join(shown(render_verdict(judgement.verdict)).split())
    assert told in (out / "report.md").read_text()
    comparison = json.loads((out / "report.json").read_text())["verdict"]["comparisons"][0]
    assert comparison["smallest_margin"] == pytest.approx(judgement.verdict.comparisons[0].smallest_margin)
    assert 0.0730 < comparison["smallest_margin"] < 0.0740
    patient = write_suite(tmp_path, gate={"margin": 0.074})
    assert judge_model(patient, model("new", wrong_on(3)), model("old", wrong_on(1))).exit_code == 0


def test_a_skewed_mean_has_an_interval_on_its_scale(tmp_path: Path) -> None:
    write_rows(tmp_path / "items.jsonl", [{"prompt": f"q {n}", "reference": "yes it is"} for n in range(20)])
    values = {
        "name": "short",
        "task": "generate",
        "data": [{"source": "items.jsonl", "format": "prompt"}],
        "metrics": ["token_f1", "rougeL", "length_words"],
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(values))
    outputs = write_outputs(tmp_path / "outputs.jsonl", ["no"] + ["yes it is"] * 19)
    judgement = judge_model(load_suite(str(tmp_path / "suite.yaml")), outputs)
    for name, highest in (("token_f1", 1), ("rougeL", 100)):
        interval = judgement.candidate.metrics[name].interval
        # Clopper and Pearson's, of 19 in 20.
        expected = binomtest(19, 20).proportion_ci(0.95, method="exact")
        assert interval.lower == pytest.approx(expected.low * highest, abs=1e-6)
        assert interval.upper == pytest.approx(expected.high * highest, abs=1e-6)
    assert judgement.candidate.metrics["length_words"].interval.upper > 3


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
        ({"scoring": "likelihood"}, "another scoring"),
        ({"items": 59}, "another data"),
        ({"labels": LABELS[::-1], "items": 30}, "another data and another labels"),
        ({"generation": {"max_tokens": 7}}, "another generation"),
        ({"cluster": "user"}, "another cluster"),
    ],
)
def test_a_report_of_another_suite_is_refused_as_baseline(
    tmp_path: Path, suite: Suite, model: Any, changes: dict[str, Any], different: str
) -> None:
    judge_model(suite, model("old", always_right), out=tmp_path / "old")
    other = write_suite(tmp_path, **changes)
    message = complaint(DataError, other, model("new", always_right), tmp_path / "old" / "report.json")
    assert different in message


def test_a_report_whose_labels_were_read_by_other_rules_is_refused_as_baseline(
    tmp_path: Path, suite: Suite, model: Any
) -> None:
    judge_model(suite, model("old", always_right), out=tmp_path / "old")
    report = tmp_path / "old" / "report.json"
    document = json.loads(report.read_text())
    del document["hashes"]["reading of labels"]
    report.write_text(json.dumps(document))
    message = complaint(DataError, suite, model("new", always_right), report)
    assert "judged with another reading of labels" in message


def test_figures_of_an_earlier_report_are_measured_again_from_its_answers(tmp_path: Path) -> None:
    texts = ["Кошка спит на крыше", "Собака бежит по лесу"] * 2
    rows = [{"id": place, "prompt": "Что?", "reference": text} for place, text in enumerate(texts)]
    write_rows(tmp_path / "items.jsonl", rows)
    values = {"name": "x", "task": "generate", "data": [{"source": "items.jsonl", "format": "prompt"}]}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({**values, "metrics": ["rougeL", "token_f1"]}))
    suite = load_suite(str(tmp_path / "suite.yaml"))
    write_rows(tmp_path / "outputs.jsonl", [{"id": row["id"], "output": row["reference"]} for row in rows])
    outputs = tmp_path / "outputs.jsonl"
    judge_model(suite, outputs, out=tmp_path / "old")
    report = tmp_path / "old" / "report.json"
    document = json.loads(report.read_text())
    document["candidate"]["measures"]["rougeL"]["value"] = 0.0  # what words of a to z saw of these texts
    report.write_text(json.dumps(document))
    judgement = judge_model(suite, outputs, report)
    assert judgement.baseline is not None
    assert judgement.baseline.metrics["rougeL"].value == 100


def test_a_remembered_answer_has_the_label_that_its_text_has_now(suite: Suite) -> None:
    items = read_items(suite)
    remembered = {"id": "?", "text": "not negative", "predicted": "negative"}
    cache = SimpleNamespace(get=lambda key: remembered)
    subject = SimpleNamespace(kind="gguf", fingerprint="0", runtime={})
    known = plan_answers(suite, items, subject, cache).known  # type: ignore[arg-type]
    assert {(answer.text, answer.predicted) for answer in known.values()} == {("not negative", None)}


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


@pytest.mark.parametrize("damage", ["items", "measures"])
def test_a_damaged_report_is_refused_as_baseline(tmp_path: Path, suite: Suite, model: Any, damage: str) -> None:
    judge_model(suite, model("old", always_right), out=tmp_path / "old")
    report = tmp_path / "old" / "report.json"
    document = json.loads(report.read_text())
    if damage == "items":
        document["candidate"]["answers"].pop()
    else:
        document["candidate"]["measures"]["accuracy"]["value"] = "much"
    report.write_text(json.dumps(document))
    message = complaint(DataError, suite, model("new", always_right), report)
    assert "damaged" in message
    assert damage in message


def test_a_missing_model_is_named_before_any_other_is_asked(tmp_path: Path, suite: Suite, model: Any) -> None:
    for missing in ("nowhere.gguf", "nowhere.jsonl", "nowhere"):
        new = model("new", always_right)
        assert missing in complaint(ModelError, suite, tmp_path / missing)
        assert missing in complaint(ModelError, suite, new, tmp_path / missing)


def test_one_item_can_be_judged_but_not_compared(tmp_path: Path, model: Any) -> None:
    suite, new = write_suite(tmp_path, items=1), model("new", always_right, items=1)
    assert judge_model(suite, new).candidate.metrics["accuracy"].value == 1
    assert "at least 2" in complaint(DataError, suite, new, new)


def test_one_cluster_cannot_be_compared(tmp_path: Path, model: Any) -> None:
    suite, new = write_suite(tmp_path, items=4, cluster="user"), model("new", always_right, items=4)
    message = complaint(DataError, suite, new, new)
    assert "1 cluster (column user)" in message


def test_an_existing_report_is_kept_unless_forced(tmp_path: Path, suite: Suite, model: Any) -> None:
    new, out = model("new", always_right), tmp_path / "report"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "--force" in complaint(OutputError, suite, new, out=out)
    assert (out / "mine.txt").exists()
    judge_model(suite, new, out=out, force=True)
    assert (out / "report.json").exists()


def test_perplexities_of_other_tokens_are_not_compared(tmp_path: Path) -> None:
    write_rows(tmp_path / "items.jsonl", [{"text": f"text {number:02}"} for number in range(30)])
    values = {"name": "p", "task": "perplexity", "data": [{"source": "items.jsonl", "format": "text"}]}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(values))

    def likelihoods(name: str, nats: float, tokens: int) -> Path:
        rows = [{"nll_nats": nats + 0.01 * n, "nll_tokens": tokens, "nll_bytes": 7} for n in range(30)]
        return write_rows(tmp_path / name, rows)

    suite = load_suite(str(tmp_path / "suite.yaml"))
    old, worse = likelihoods("old.jsonl", 6.0, 3), likelihoods("worse.jsonl", 6.6, 3)
    assert judge_model(suite, worse, old).exit_code == 1
    assert judge_model(suite, old, worse).exit_code == 0
    message = complaint(DataError, suite, likelihoods("other.jsonl", 6.0, 4), old)
    assert "bits_per_byte" in message
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({**values, "gate": {"metric": "bits_per_byte"}}))
    by_bytes = load_suite(str(tmp_path / "suite.yaml"))
    assert [one.metric for one in judge_model(by_bytes, worse, old).differences] == ["perplexity"]
    assert judge_model(by_bytes, likelihoods("other.jsonl", 6.0, 4), old).differences == ()


@pytest.mark.parametrize("scoring", ["likelihood", "generate"])
def test_a_real_model_is_judged_in_llama_cpp(tmp_path: Path, smollm2_gguf: Path, scoring: str) -> None:
    shipped = load_suite("sentiment-demo")
    source = shipped.data[0].model_copy(update={"split": "[:12]"})
    suite = shipped.model_copy(update={"data": [source], "scoring": scoring})
    judgement = judge_model(suite, smollm2_gguf, out=tmp_path / "base")
    answers = judgement.candidate.answers
    assert len(answers) == 12
    for answer in answers:
        if scoring == "generate":
            assert answer.text
        else:
            assert answer.log_probabilities is not None
            assert answer.predicted == max(answer.log_probabilities, key=answer.log_probabilities.__getitem__)
            assert max(answer.log_probabilities.values()) < 0
    again = judge_model(suite, smollm2_gguf, tmp_path / "base" / "report.json")
    assert again.exit_code == 0
    assert _predictions(again.candidate.answers) == _predictions(answers)


def _predictions(answers: Sequence[Any]) -> list[str | None]:
    return [answer.predicted for answer in answers]
