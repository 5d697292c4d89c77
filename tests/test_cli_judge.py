"""`edgetune judge` on the command line: what it prints where, and the exit codes that scripts act on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from edgetune import console
from edgetune.cli.judge import judge
from edgetune.data.example import Message
from edgetune.errors import EdgetuneError
from edgetune.judging.subject import Predict
from edgetune.judging.suite import Suite
from edgetune.runtime.classify import Prediction

SUITE = """\
name: animals
task: classify
data: [{source: animals.csv, format: text-label}]
labels: [cat, dog]
prompt: "Which animal? {text}"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A suite of 40 items, and stub models that are right on as many items as their file's name says."""
    rows = "".join(f"item {number},{'cat' if number % 2 else 'dog'}\n" for number in range(40))
    (tmp_path / "animals.csv").write_text(f"text,label\n{rows}")
    (tmp_path / "animals.yaml").write_text(SUITE)
    for right in (0, 20, 39, 40):
        (tmp_path / f"right-{right}.gguf").write_bytes(f"GGUF{right}".encode())

    @contextmanager
    def open_stub(path: Path, suite: Suite, *, threads: int | None = None) -> Iterator[Predict]:
        def predict(messages: Sequence[Message]) -> Prediction:
            number = int(messages[-1].content.split()[-1])
            right = number < int(path.stem.split("-")[1])
            return Prediction("cat" if bool(number % 2) == right else "dog", {"cat": -1.0, "dog": -2.0}, None)

        yield predict

    monkeypatch.setattr("edgetune.judging.evaluate.open_subject", open_stub)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    console.configure(json_mode=False)


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(judge)
    return CliRunner().invoke(app, ["animals.yaml", *arguments])


@pytest.mark.parametrize(
    ("model", "baseline", "verdict", "code"),
    [("40", "20", "PASS", 0), ("20", "40", "REGRESSION", 1), ("39", "40", "INCONCLUSIVE", 3)],
)
@pytest.mark.usefixtures("folder")
def test_the_exit_code_is_the_verdict(model: str, baseline: str, verdict: str, code: int) -> None:
    result = run("--model", f"right-{model}.gguf", "--baseline", f"right-{baseline}.gguf")
    assert result.exit_code == code
    assert verdict in result.stdout
    assert "accuracy" in result.stdout
    assert f"baseline: right-{baseline}.gguf" in result.stdout


@pytest.mark.usefixtures("folder")
def test_without_a_baseline_the_exit_code_is_0_and_it_says_that_nothing_was_compared() -> None:
    result = run("--model", "right-0.gguf")
    assert result.exit_code == 0
    assert "Nothing was compared" in result.stdout


@pytest.mark.usefixtures("folder")
def test_json_is_one_document_on_stdout_with_the_same_exit_code() -> None:
    result = run("--model", "right-20.gguf", "--baseline", "right-40.gguf", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == document["exit_code"] == 1
    assert document["verdict"]["outcome"] == "REGRESSION"
    assert document["candidate"]["metrics"]["accuracy"] == 0.5


def test_out_gets_the_report_and_the_report_serves_as_baseline(folder: Path) -> None:
    first = run("--model", "right-40.gguf", "--out", "judged/base")
    assert first.exit_code == 0
    assert "judged/base/report.md" in first.stderr
    assert (folder / "judged" / "base" / "confusion.png").exists()
    second = run("--model", "right-20.gguf", "--baseline", "judged/base/report.json")
    assert second.exit_code == 1
    assert "REGRESSION" in second.stdout


@pytest.mark.usefixtures("folder")
def test_bad_input_is_one_clear_error() -> None:
    result = run("--model", "nowhere.gguf")
    assert isinstance(result.exception, EdgetuneError)
    assert result.exception.exit_code == 2
    assert "nowhere.gguf: there is no such file" in str(result.exception)
    assert run().exit_code == 2
    assert run("--model", "right-0.gguf", "--threads", "0").exit_code == 2
