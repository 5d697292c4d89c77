"""Outputs made elsewhere as a model under test: their columns, their ids, and what bad files are told."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgetune.data.example import Message
from edgetune.errors import DataError, EdgetuneError, ModelError
from edgetune.judging.metrics.samples import samples_of
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.outputs.outputs_file import OutputsFile, open_outputs, recognizes
from edgetune.judging.subjects.subject import Subject
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.registry import METRICS

LABELS = ["negative", "neutral", "positive"]
FORMATS = {"classify": "text-label", "generate": "prompt", "perplexity": "text"}
ITEMS = [
    Item(name, f"x:{place}", text, (Message("user", text),), gold="positive", references=(text,))
    for place, (name, text) in enumerate([("a", "naïve"), ("b", "two words"), ("c", "x")])
]


def suite_of(task: str) -> Suite:
    given: dict[str, Any] = {"name": "little", "task": task, "data": [{"source": "x.jsonl", "format": FORMATS[task]}]}
    if task == "classify":
        given |= {"labels": LABELS, "prompt": "{text}?"}
    return Suite.model_validate(given)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), dialect="excel" if path.suffix == ".csv" else "excel-tab")
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def opened(folder: Path, rows: Sequence[dict[str, Any]], name: str = "outputs.jsonl") -> OutputsFile:
    return open_outputs(write(folder / name, rows))


def answers_of(folder: Path, rows: Sequence[dict[str, Any]], task: str) -> list[Answer]:
    subject, suite = opened(folder, rows), suite_of(task)
    subject.check(ITEMS, suite)
    return list(subject.answers(ITEMS, suite))


def refusal(
    folder: Path, rows: Sequence[dict[str, Any]], task: str = "generate", kind: type[EdgetuneError] = DataError
) -> str:
    with pytest.raises(kind) as caught:
        answers_of(folder, rows, task)
    assert str(caught.value).startswith(str(folder / "outputs.jsonl"))
    return str(caught.value)


def texts(*written: str) -> list[dict[str, Any]]:
    return [{"id": item.id, "output": text} for item, text in zip(ITEMS, written, strict=True)]


def test_outputs_are_paired_by_id_whatever_their_order(tmp_path: Path) -> None:
    found = answers_of(tmp_path, texts("A", "", "C \u0000")[::-1], "generate")
    assert found == [Answer("a", text="A"), Answer("b", text=""), Answer("c", text="C \u0000")]


def test_columns_of_a_servers_log_tell_why_a_text_ended_and_its_reasoning(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "output": "A", "finish_reason": "stop", "reasoning_content": "hm"},
        {"id": "b", "output": "", "finish_reason": "MAX_TOKENS", "reasoning_content": "hm, hm"},
        {"id": "c", "output": "<think>so</think>C", "finish_reason": None, "reasoning_content": None},
    ]
    found = answers_of(tmp_path, rows, "generate")
    assert [(each.text, each.reasoning, each.finish) for each in found] == [
        ("A", "hm", "stop"),
        ("", "hm, hm", "length"),
        ("C", "so", None),
    ]


def test_the_reasoning_in_a_conversation_is_no_part_of_its_output(tmp_path: Path) -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    rows = [
        {"id": "a", "messages": [{"role": "assistant", "content": "A", "reasoning_content": "hm"}]},
        {"id": "b", "messages": [{"role": "assistant", "content": [thinking, {"type": "text", "text": "B"}]}]},
        {"id": "c", "messages": [{"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "C"}]}]},
    ]
    found = answers_of(tmp_path, rows, "generate")
    assert [(each.text, each.reasoning) for each in found] == [("A", "hm"), ("B", "hm"), ("C", "hm")]


def test_without_ids_the_order_is_the_suites(tmp_path: Path) -> None:
    rows = [{"response": text} for text in ("A", "B", "C")]
    assert [answer.text for answer in answers_of(tmp_path, rows, "generate")] == ["A", "B", "C"]
    message = refusal(tmp_path, rows[:2])
    assert "it has 2 rows for the suite's 3 items, and no column id" in message


@pytest.mark.parametrize("column", ["output", "answer", "response", "prediction", "completion", "generated_text"])
def test_the_usual_names_of_outputs_are_known(tmp_path: Path, column: str) -> None:
    rows = [{"id": item.id, column: "x"} for item in ITEMS]
    assert [answer.text for answer in answers_of(tmp_path, rows, "generate")] == ["x"] * 3


def test_the_same_outputs_are_the_same_model_in_any_kind_of_file(tmp_path: Path) -> None:
    rows = texts("A, b", 'say "c"', "né")
    prints = {opened(tmp_path, rows, f"o{suffix}").fingerprint for suffix in (".jsonl", ".json", ".csv", ".parquet")}
    assert prints == {opened(tmp_path, rows[::-1]).fingerprint}
    assert opened(tmp_path, [{**row, "note": "made on Monday"} for row in rows]).fingerprint in prints
    assert opened(tmp_path, texts("A, b", 'say "c"', "ne")).fingerprint not in prints
    assert opened(tmp_path, [{"output": row["output"]} for row in rows]).fingerprint not in prints


def test_tables_of_tabs_hold_likelihoods_and_labels_too(tmp_path: Path) -> None:
    rows = [{"id": item.id, "predicted": label} for item, label in zip(ITEMS, LABELS, strict=True)]
    subject = opened(tmp_path, rows, "labels.tsv")
    assert [answer.predicted for answer in subject.answers(ITEMS, suite_of("classify"))] == LABELS
    assert subject.fingerprint == opened(tmp_path, rows).fingerprint


def test_a_file_of_outputs_is_a_subject_that_is_no_model_file(tmp_path: Path) -> None:
    file = write(tmp_path / "outputs.jsonl", texts("A", "B", "C"))
    assert recognizes(file)
    assert recognizes("OUTPUTS.CSV")
    assert not recognizes("model.gguf")
    subject: Subject = open_outputs(file)
    assert (subject.reference, subject.kind, subject.size_bytes) == (file, "outputs", None)
    assert len(subject.fingerprint) == 64
    subject.close()


def test_labels_are_taken_as_given_and_unknown_ones_are_unparsed(tmp_path: Path) -> None:
    rows = [{"id": "a", "predicted": "Positive "}, {"id": "b", "predicted": "mixed"}, {"id": "c", "predicted": None}]
    found = answers_of(tmp_path, rows, "classify")
    assert [answer.predicted for answer in found] == ["positive", None, None]
    assert [answer.text for answer in found] == ["Positive ", "mixed", ""]


def test_numbers_are_outputs_as_a_table_would_write_them(tmp_path: Path) -> None:
    rows = [{"id": "a", "output": 1}, {"id": "b", "output": 1.0}, {"id": "c", "output": -0.5}]
    assert [answer.text for answer in answers_of(tmp_path, rows, "generate")] == ["1", "1", "-0.5"]


def test_labels_are_read_from_written_answers_as_from_a_model_here(tmp_path: Path) -> None:
    found = answers_of(tmp_path, texts("It is positive.", "positive or negative", "POSITIVE"), "classify")
    assert [answer.predicted for answer in found] == ["positive", None, "positive"]
    assert METRICS["accuracy"].compute(samples_of(ITEMS, found, suite_of("classify"))).value == pytest.approx(2 / 3)


def test_the_right_labels_beside_outputs_are_not_taken_for_predictions(tmp_path: Path) -> None:
    rows = [{**row, "label": "positive"} for row in texts("negative", "negative", "neutral")]
    assert [answer.predicted for answer in answers_of(tmp_path, rows, "classify")] == [
        "negative",
        "negative",
        "neutral",
    ]
    likelihoods = {"negative": -0.1, "neutral": -3.0, "positive": -4.0}
    rows = [{"id": item.id, "label": "positive", "log_probabilities": likelihoods} for item in ITEMS]
    assert [answer.predicted for answer in answers_of(tmp_path, rows, "classify")] == ["negative"] * 3


def test_a_column_label_by_itself_is_taken_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": item.id, "label": "neutral"} for item in ITEMS]
    assert [answer.predicted for answer in answers_of(tmp_path, rows, "classify")] == ["neutral"] * 3
    assert "column label is used as the labels that the model gave" in capsys.readouterr().err


def test_class_numbers_are_refused_rather_than_all_unparsed(tmp_path: Path) -> None:
    rows = [{"id": item.id, "predicted": 2} for item in ITEMS]
    assert "column predicted holds none of the suite's labels (negative, neutral, positive); it holds 2" in refusal(
        tmp_path, rows, "classify"
    )


def test_likelihoods_give_the_likeliest_label(tmp_path: Path) -> None:
    likelihoods = {"negative": -2.0, "neutral": -0.5, "positive": -0.5}
    for value in (likelihoods, json.dumps(likelihoods)):
        rows = [{"id": item.id, "log_probabilities": value} for item in ITEMS]
        found = answers_of(tmp_path, rows, "classify")
        assert [answer.predicted for answer in found] == ["neutral"] * 3
        assert found[0].log_probabilities == likelihoods


def test_likelihoods_are_of_the_labels_that_their_names_are_but_for_case(tmp_path: Path) -> None:
    rows = [{"id": item.id, "log_probabilities": {"Neutral": -1, "POSITIVE ": -2, "negative": -3}} for item in ITEMS]
    assert answers_of(tmp_path, rows, "classify")[0].log_probabilities == {
        "negative": -3,
        "neutral": -1,
        "positive": -2,
    }


def test_likelihoods_of_texts_are_read_with_the_bytes_of_the_item(tmp_path: Path) -> None:
    rows = [{"id": item.id, "nll_nats": 1.5, "nll_tokens": 2} for item in ITEMS]
    found = answers_of(tmp_path, rows, "perplexity")
    assert found[0] == Answer("a", nll_nats=1.5, nll_tokens=2, nll_bytes=6)
    bare = answers_of(tmp_path, [{"id": item.id, "nll_nats": "1.5"} for item in ITEMS], "perplexity")
    assert bare[0] == Answer("a", nll_nats=1.5, nll_bytes=6)


def test_an_item_without_an_output_is_an_error_and_an_output_without_an_item_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*texts("A", "B", "C"), {"id": "other", "output": "D"}]
    assert len(answers_of(tmp_path, rows, "generate")) == 3
    assert "1 of 4 rows match no item and are ignored" in capsys.readouterr().err
    message = refusal(tmp_path, rows[2:])
    assert "2 of the suite's 3 items have no output: a, b;" in message
    assert "the file's ids are like c, other" in message


@pytest.mark.parametrize("second", [1, 1.0, "1"])
def test_an_id_is_used_once(tmp_path: Path, second: Any) -> None:
    rows = [{"id": 1, "output": "x"}, {"id": second, "output": "x"}]
    message = refusal(tmp_path, rows)
    assert "outputs.jsonl:2: the id '1' is used 2 times, first at" in message


@pytest.mark.parametrize(
    ("rows", "task", "words"),
    [
        ([*texts("A", "B", "C")[:2], {"output": "C"}], "generate", "jsonl:3: 1 of 3 rows have no id"),
        ([{"id": "a", "text": "x"}], "generate", "there is no column of outputs; the columns are id, text"),
        ([{"id": "a", "output": "x", "answer": "y"}], "generate", "output and answer could all be the model's outputs"),
        ([{"id": item.id, "output": None} for item in ITEMS], "generate", "jsonl:1: output must hold text, not None"),
        ([{"id": item.id, "output": float("nan")} for item in ITEMS], "generate", "output must hold text, not nan"),
        ([{"id": item.id, "output": True} for item in ITEMS], "generate", "output must hold text, not True"),
        ([{"id": item.id, "output": {"a": 1}} for item in ITEMS], "generate", "output must hold text, not {'a': 1}"),
        ([{"id": item.id, "output": "\ud83d"} for item in ITEMS], "generate", "output contains an unpaired surrogate"),
        ([{"id": item.id, "predicted": "positive"} for item in ITEMS], "generate", "needs a column output"),
        (
            [{"id": "a", "predicted": "positive", "label": "neutral"}, {"id": "b", "label": "neutral"}, {"id": "c"}],
            "classify",
            "jsonl:2: this row has no predicted, and others have",
        ),
        ([{"id": item.id, "predicted": ["positive"]} for item in ITEMS], "classify", "predicted must hold a label"),
        ([{"id": item.id, "nll_nats": 1.0} for item in ITEMS], "classify", "needs a column predicted"),
        (
            [{"id": item.id, "log_probabilities": {"negative": -1.0}} for item in ITEMS],
            "classify",
            "log_probabilities are of negative, and the suite's labels are",
        ),
        (
            [{"id": item.id, "log_probabilities": dict.fromkeys(LABELS, float("-inf"))} for item in ITEMS],
            "classify",
            "log_probabilities of negative must be a finite number, not -inf",
        ),
        ([{"id": item.id, "log_probabilities": "high"} for item in ITEMS], "classify", "must hold nats by label"),
        (texts("A", "B", "C"), "perplexity", "task perplexity needs nll_nats"),
        ([{"id": item.id, "nll_nats": float("nan")} for item in ITEMS], "perplexity", "nll_nats must be a finite"),
        (
            [{"id": item.id, "nll_nats": 1.0, "nll_tokens": 1.5} for item in ITEMS],
            "perplexity",
            "nll_tokens must be a whole number, not 1.5",
        ),
        (
            [{"id": item.id, "nll_nats": 1.0, "nll_bytes": 5} for item in ITEMS],
            "perplexity",
            "nll_bytes is 5, but the text of item a has 6 bytes",
        ),
    ],
)
def test_a_file_that_cannot_be_judged_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], task: str, words: str
) -> None:
    assert words in refusal(tmp_path, rows, task)


def test_a_missing_an_empty_and_a_broken_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such file of outputs"):
        open_outputs(str(tmp_path / "none.jsonl"))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="this file is empty"):
        open_outputs(str(empty))
    empty.write_text('{"id": 1, "output": "x"')
    with pytest.raises(DataError, match=r"empty\.jsonl:1: is not valid JSON"):
        open_outputs(str(empty))
