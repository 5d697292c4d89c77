"""Outputs as other programs write them: conversations, completions, batch files, lm-evaluation-harness's samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgetune.data.example import Message
from edgetune.errors import DataError
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.outputs.outputs_file import open_outputs
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite

TEXTS = ["How warm is the sun?", "How deep is the sea?", "How old is the moon?"]
ITEMS = [Item(str(place), f"x:{place}", text, (Message("user", text),)) for place, text in enumerate(TEXTS, start=1)]
FORMATS = {"classify": "text-label", "generate": "prompt", "perplexity": "text"}


def suite_of(task: str, labels: Sequence[str] = ("A", "B", "C", "D")) -> Suite:
    given: dict[str, Any] = {"name": "little", "task": task, "data": [{"source": "x.jsonl", "format": FORMATS[task]}]}
    if task == "classify":
        given |= {"labels": list(labels), "prompt": "{text}"}
    return Suite.model_validate(given)


def answers_of(
    folder: Path, rows: Sequence[dict[str, Any]], suite: Suite | None = None, items: Sequence[Item] = ITEMS
) -> list[Answer]:
    file = folder / "samples_task.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    subject = open_outputs(str(file))
    suite = suite or suite_of("generate")
    subject.check(items, suite)
    return list(subject.answers(items, suite))


def refusal(folder: Path, rows: Sequence[dict[str, Any]], suite: Suite | None = None) -> str:
    with pytest.raises(DataError) as caught:
        answers_of(folder, rows, suite)
    return str(caught.value)


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def completion(text: str | None, reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}
        ],
    }


ASKED = {"role": "user", "content": "How?"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, said("no"), ASKED, said("very")]},
        {"output": [ASKED, said("very")]},
        {"output": said("very")},
        {"generated_text": [ASKED, said("very")]},
        {
            "response": {
                "role": "assistant",
                "content": [{"type": "text", "text": "ve"}, {"type": "text", "text": "ry"}],
            }
        },
        {"conversations": [{"from": "human", "value": "How?"}, {"from": "gpt", "value": "very"}]},
        {"messages": json.dumps([ASKED, said("very")])},
        {"messages": [ASKED], "output": "very"},
        {"messages": [ASKED], "response": said("very")},
        {"messages": [ASKED], **completion("very")},
        {"response": completion("very")},
        {"choices": [{"text": "very", "finish_reason": "stop"}]},
        {"response": {"output": [{"type": "reasoning", "summary": []}, {"type": "message", **said("very")}]}},
        {
            "response": {
                "candidates": [{"content": {"role": "model", "parts": [{"text": "very"}]}, "finishReason": "STOP"}]
            }
        },
        {"result": {"type": "succeeded", "message": {**said("very"), "stop_reason": "end_turn"}}},
    ],
)
def test_the_assistants_last_message_is_the_output(tmp_path: Path, row: dict[str, Any]) -> None:
    rows = [{"custom_id": item.id, **row} for item in ITEMS][::-1] if "choices" in row or "result" in row else None
    rows = rows or [{**row, "id": item.id} for item in ITEMS][::-1]
    answers = answers_of(tmp_path, rows)
    assert [answer.text for answer in answers] == ["very"] * 3
    assert {answer.finish for answer in answers} <= {"stop", None}


def test_a_batch_file_is_matched_by_custom_id_and_says_why_an_output_ended(tmp_path: Path) -> None:
    bodies = [completion("hot"), completion("dee", "length"), completion(None, refusal="I cannot say")]
    rows = [
        {"id": f"batch_{place}", "custom_id": item.id, "response": {"status_code": 200, "body": body}, "error": None}
        for place, (item, body) in enumerate(zip(ITEMS, bodies, strict=True))
    ]
    answers = answers_of(tmp_path, rows[::-1])
    assert [(answer.text, answer.finish) for answer in answers] == [
        ("hot", "stop"),
        ("dee", "length"),
        ("I cannot say", "stop"),
    ]


def test_what_names_the_item_in_other_files_is_an_id_too(tmp_path: Path) -> None:
    for rows in (
        [{"custom_id": item.id, "output": item.text} for item in ITEMS],
        [
            {"key": item.id, "response": {"candidates": [{"content": {"parts": [{"text": item.text}]}}]}}
            for item in ITEMS
        ],
        [{"key": "x", "id": item.id, "messages": [said(item.text)]} for item in ITEMS],
    ):
        assert [answer.text for answer in answers_of(tmp_path, rows[::-1])] == TEXTS


def test_a_column_says_why_an_output_ended(tmp_path: Path) -> None:
    rows = [
        {"id": item.id, "output": "x", "finish_reason": reason}
        for item, reason in zip(ITEMS, ["length", "stop", ""], strict=True)
    ]
    assert [answer.finish for answer in answers_of(tmp_path, rows)] == ["length", "stop", None]


def test_completions_without_ids_of_items_are_in_the_order_of_the_suite(tmp_path: Path) -> None:
    rows = [completion(text) for text in ("a", "b", "c")]
    assert [answer.text for answer in answers_of(tmp_path, rows)] == ["a", "b", "c"]


def test_a_prompt_that_a_filter_refused_is_an_empty_output_and_another_failure_is_an_error(tmp_path: Path) -> None:
    def batch(error: dict[str, Any]) -> list[dict[str, Any]]:
        good = [{"custom_id": item.id, "response": {"status_code": 200, "body": completion("x")}} for item in ITEMS[:2]]
        return [*good, {"custom_id": "3", "response": {"status_code": 400, "body": {"error": error}}, "error": None}]

    filtered = answers_of(tmp_path, batch({"code": "content_filter", "message": "no"}))[2]
    assert (filtered.text, filtered.finish) == ("", "content_filter")
    message = refusal(tmp_path, batch({"code": "rate_limit", "message": "slow down"}))
    assert "samples_task.jsonl:3: the request of this row has failed" in message
    assert "rate_limit" in message
    expired = [{"custom_id": item.id, "response": None, "error": {"code": "batch_expired"}} for item in ITEMS]
    assert "batch_expired" in refusal(tmp_path, expired)


def test_a_conversation_that_nobody_answered_is_refused(tmp_path: Path) -> None:
    rows = [{"id": item.id, "messages": [ASKED, said("x"), ASKED]} for item in ITEMS]
    assert "samples_task.jsonl:1: the conversation ends with 'user' and holds no answer" in refusal(tmp_path, rows)


def generated(place: int, text: str, **more: Any) -> dict[str, Any]:
    """A sample of a task of output_type generate_until, as lm-evaluation-harness 0.4 writes it."""
    prompt = f"Q: {TEXTS[place]}\nA:"
    return {
        "doc_id": place,
        "doc": {"question": TEXTS[place], "answer": f"{place}"},
        "target": f"{place}",
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {"until": ["\n"], "do_sample": False}}},
        "resps": [[f" so it is {text}"]],
        "filtered_resps": [text],
        "filter": "strict-match",
        "metrics": ["exact_match"],
        "doc_hash": "0",
        "exact_match": 1.0,
        **more,
    }


def compared(place: int, scores: Sequence[float], texts: Sequence[str], **doc: Any) -> dict[str, Any]:
    """A sample of a multiple-choice task; newer versions write all numbers as texts."""
    return {
        "doc_id": place,
        "doc": {"question": TEXTS[place], "choices": list(texts), **doc},
        "target": "1",
        "arguments": {
            f"gen_args_{number}": {"arg_0": TEXTS[place], "arg_1": f" {text}"} for number, text in enumerate(texts)
        },
        "resps": [[[str(score), "False"]] for score in scores],
        "filtered_resps": [[str(score), "False"] for score in scores],
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "acc": 1.0,
    }


def test_what_was_generated_is_the_output_as_the_tasks_filter_left_it(tmp_path: Path) -> None:
    rows = [generated(place, text) for place, text in enumerate(["hot", "deep", "42"])]
    assert [answer.text for answer in answers_of(tmp_path, rows[::-1])] == ["hot", "deep", "42"]
    flat = [{**row, "resps": row["resps"][0], "arguments": [[row["doc"]["question"], {"until": []}]]} for row in rows]
    assert [answer.text for answer in answers_of(tmp_path, flat)] == ["hot", "deep", "42"]


def test_of_several_filters_the_raw_output_is_judged_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [generated(place, "hot") for place in range(3)]
    rows += [generated(place, "hot", filter="flexible-extract", filtered_resps=["[invalid]"]) for place in range(3)]
    assert [answer.text for answer in answers_of(tmp_path, rows)] == [" so it is hot"] * 3
    assert "2 filters (strict-match, flexible-extract), so the raw outputs are judged" in capsys.readouterr().err


def test_documents_are_matched_by_their_own_ids_by_number_or_by_order_and_by_nothing_else(tmp_path: Path) -> None:
    rows = [generated(place, f"{place}") for place in range(3)]
    named = [{**row, "doc": {**row["doc"], "qid": f"q{row['doc_id']}"}} for row in rows]
    items = [Item(f"q{place}", "x", TEXTS[place], ()) for place in (2, 0)]
    assert [answer.text for answer in answers_of(tmp_path, named, items=items)] == ["2", "0"]
    items = [Item(str(place), "x", TEXTS[place], ()) for place in (2, 0)]
    assert [answer.text for answer in answers_of(tmp_path, rows, items=items)] == ["2", "0"]
    # The suite's items have numbers from 1, and four documents from 0 have these, too: the texts tell the difference.
    more = [*rows, {**generated(2, "x"), "doc_id": 3}]
    message = refusal(tmp_path, more)
    assert "its 4 documents do not match the suite's 3 items" in message
    assert "id: doc_id" in message
    assert "its 3 documents do not match" in refusal(tmp_path, [{**row, "doc": {}, "arguments": {}} for row in rows])


def test_the_likeliest_continuation_is_the_label_or_the_option_of_its_place(tmp_path: Path) -> None:
    letters = [compared(place, [-3.5, -0.25, -7, -4], "ABCD") for place in range(3)]
    answer = answers_of(tmp_path, letters, suite_of("classify"))[0]
    assert answer == Answer(
        "1", text="B", predicted="B", log_probabilities={"A": -3.5, "B": -0.25, "C": -7.0, "D": -4.0}
    )
    words = [compared(place, [-3.5, -0.25, -7], ["red", "a green one", "blue"]) for place in range(3)]
    answer = answers_of(tmp_path, words, suite_of("classify"))[0]
    assert (answer.text, answer.predicted, answer.log_probabilities) == ("a green one", "B", None)
    moods = suite_of("classify", ["positive", "negative"])
    answer = answers_of(tmp_path, [compared(place, [-1, -2], ["Negative", "Positive"]) for place in range(3)], moods)[0]
    assert answer.predicted == "negative"
    assert list(answer.log_probabilities or ()) == ["positive", "negative"]
    assert "the continuations are red, a green one, blue, and the suite's labels are positive, negative" in refusal(
        tmp_path, words, moods
    )


def test_contexts_that_differ_before_one_continuation_are_options_by_number(tmp_path: Path) -> None:
    rows = [compared(place, [-3, -2], ["is far.", "is far."]) for place in range(3)]
    answers = answers_of(tmp_path, rows, suite_of("classify", ["1", "2"]))
    assert [answer.predicted for answer in answers] == ["2"] * 3


def test_continuations_that_were_scored_without_context_too_count_once(tmp_path: Path) -> None:
    rows = [compared(place, [-3, -2, -1, -9], ["yes", "no", "yes", "no"]) for place in range(3)]
    for row in rows:
        row["arguments"]["gen_args_2"]["arg_0"] = row["arguments"]["gen_args_3"]["arg_0"] = ""
    answers = answers_of(tmp_path, rows, suite_of("classify", ["yes", "no"]))
    assert [answer.predicted for answer in answers] == ["no"] * 3


def test_the_likeliest_continuation_is_the_output_of_a_suite_of_texts(tmp_path: Path) -> None:
    rows = [compared(place, [-3.5, -0.25], ["red", "green"]) for place in range(3)]
    assert [answer.text for answer in answers_of(tmp_path, rows)] == ["green"] * 3


def test_log_likelihoods_of_whole_texts_are_perplexities(tmp_path: Path) -> None:
    rows = [
        {
            "doc_id": place,
            "doc": {"page": TEXTS[place]},
            "arguments": {"gen_args_0": {"arg_0": TEXTS[place]}},
            "resps": [["-12.5"]],
            "filtered_resps": ["-12.5"],
        }
        for place in range(3)
    ]
    answers = answers_of(tmp_path, rows, suite_of("perplexity"))
    assert answers[0] == Answer("1", nll_nats=12.5, nll_bytes=len(TEXTS[0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"filtered_resps": []}, "filtered_resps must hold what the model gave, not []"),
        ({"filtered_resps": [7]}, "filtered_resps must hold text, not 7"),
        ({"filtered_resps": [["-1", "False"], "x"], "arguments": [["a", " b"]]}, "must hold log-likelihoods"),
        ({"doc_id": None}, "doc_id must hold a name or a number"),
    ],
)
def test_a_sample_that_holds_no_outcome_is_refused_by_row(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    rows = [generated(0, "x"), {**generated(1, "x"), **change}, generated(2, "x")]
    message = refusal(tmp_path, rows)
    assert "samples_task.jsonl:2: " in message
    assert words in message
