"""One prompt that is refused for good: the run goes on, and what becomes of the item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.asked import FILTERED, VERDICT, ask, items, number_of, suite
from support.judged import judged_suite, put_judge, winner, write_outputs, write_rows
from support.stub_endpoint import StubEndpoint, StubReply, chat_reply, error_reply

from edgetune.errors import EdgetuneError
from edgetune.judging.asking.request import Failed, Reply
from edgetune.judging.gate.gate import Outcome
from edgetune.judging.report.document import report_document
from edgetune.judging.report.markdown import report_markdown
from edgetune.judging.run import judge_model
from edgetune.judging.settings import Settings
from edgetune.judging.subjects.endpoint import open_endpoint
from edgetune.judging.suites.suite import Suite, load_suite

pytestmark = pytest.mark.usefixtures("quick_backoff")


def refusing_prompt(*numbers: int, with_reply: Any = None) -> Any:
    def answer(body: dict[str, Any]) -> Any:
        if number_of(body) in numbers:
            return with_reply or StubReply(FILTERED, 400)
        return f"answer {number_of(body)}"

    return answer


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        (StubReply(FILTERED, 400), "HTTP 400: The response was filtered"),
        (error_reply(400, "maximum context length is 10 tokens", code="context_length_exceeded"), "maximum context"),
        (StubReply("Payload Too Large", 413), "HTTP 413"),
        (error_reply(403, "Your input was flagged: violence"), "HTTP 403: Your input was flagged"),
        (error_reply(400, "I do not like it"), "HTTP 400: I do not like it"),
        (StubReply({"error": {"message": "flagged by moderation", "code": 403}}), "flagged by moderation"),
        (chat_reply("", finish="content_filter"), "content filter blocked the answer"),
        (chat_reply("The first wor", finish="content_filter"), "content filter blocked the answer"),
        (chat_reply("", finish="SAFETY"), "content filter blocked the answer"),
        (
            {"choices": [{"message": {"content": None, "refusal": "I cannot."}, "finish_reason": "stop"}]},
            "the model declined: I cannot.",
        ),
    ],
    ids=[
        "filter",
        "context",
        "413",
        "moderation",
        "unknown words",
        "error in 200",
        "finish",
        "half",
        "SAFETY",
        "refusal",
    ],
)
@pytest.mark.parametrize("place", [0, 5], ids=["first", "later"])
def test_a_prompt_that_is_refused_for_good_is_one_unanswered_item(refusal: Any, says: str, place: int) -> None:
    with StubEndpoint(refusing_prompt(place, with_reply=refusal)) as stub:
        answers = list(open_endpoint(f"{stub.url}#m").answers(items(9), suite()))
    assert [answer.id for answer in answers if answer.unanswered is not None] == [str(place)]
    assert says in str(answers[place].unanswered)
    assert answers[place].text == ""
    assert [answer.text for answer in answers if answer.unanswered is None] == [
        f"answer {n}" for n in range(9) if n != place
    ]


def test_an_endpoint_whose_filter_stops_all_prompts_ends_the_run_with_advice_that_fits() -> None:
    with StubEndpoint(lambda body: StubReply(FILTERED, 400)) as stub:
        with pytest.raises(EdgetuneError, match=r"first 16 prompts, and a plain one too .*content filter allows"):
            list(open_endpoint(f"{stub.url}#m").answers(items(100), suite()))
        assert len(stub.requests) == 17
        with pytest.raises(EdgetuneError, match=r"first 16 prompts"):
            ask(stub, 100)


@pytest.mark.parametrize(
    "refusal", [StubReply(FILTERED, 400), error_reply(400, "输入内容有问题")], ids=["filter", "unknown"]
)
def test_many_refused_prompts_at_the_beginning_are_no_reason_to_give_an_endpoint_up(refusal: StubReply) -> None:
    def answer(body: dict[str, Any]) -> Any:
        hostile = body["messages"][-1]["content"].startswith("q ") and number_of(body) < 20
        return refusal if hostile else "fine"

    with StubEndpoint(answer) as stub:
        answers = list(open_endpoint(f"{stub.url}#m").answers(items(24), suite()))
    assert [answer.unanswered is None for answer in answers] == [False] * 20 + [True] * 4


def test_an_endpoint_that_begins_to_refuse_everything_without_saying_why_ends_the_run() -> None:
    with (
        StubEndpoint(lambda body: "x" if number_of(body) < 3 else error_reply(400, "no such tenant")) as stub,
        pytest.raises(EdgetuneError, match=r"16 requests were refused one after the other.*no such tenant"),
    ):
        list(open_endpoint(f"{stub.url}#m").answers(items(100), suite()))


def test_a_judge_whose_filter_stops_one_question_leaves_that_verdict_unscored() -> None:
    with StubEndpoint(lambda body: StubReply(FILTERED, 400) if number_of(body) == 0 else VERDICT) as stub:
        replies, notes = ask(stub, 6)
    assert [type(reply) for reply in replies] == [Failed] + [Reply] * 5
    assert not any("schema" in note for note in notes)


def exact_suite(folder: Path, count: int = 40) -> Suite:
    folder.mkdir(exist_ok=True)
    rows = [{"id": str(n), "prompt": f"q {n}", "reference": f"answer {n}"} for n in range(count)]
    write_rows(folder / "items.jsonl", rows)
    (folder / "suite.yaml").write_text(
        "name: exact\ntask: generate\nmetrics: [exact_match, token_f1, length_words]\n"
        "gate: {metric: exact_match}\ndata: [{source: items.jsonl, format: prompt}]\n"
    )
    return load_suite(str(folder / "suite.yaml"))


def right(folder: Path, count: int = 40) -> Path:
    return write_outputs(folder / "right.jsonl", {str(n): f"answer {n}" for n in range(count)})


def test_what_the_candidate_leaves_unanswered_counts_as_wrong_and_is_told_everywhere(tmp_path: Path) -> None:
    with StubEndpoint(refusing_prompt(*range(10))) as stub:
        judgement = judge_model(exact_suite(tmp_path / "suite"), f"{stub.url}#m", right(tmp_path))
    metrics = judgement.candidate.metrics
    assert metrics["exact_match"].value == metrics["token_f1"].value == 30 / 40
    assert metrics["length_words"].value == 2
    assert metrics["length_words"].values[0] is None
    verdict = judgement.verdict
    assert verdict is not None
    assert verdict.outcome is Outcome.REGRESSION
    assert verdict.comparisons[0].items == 40
    told = "The candidate left 10 of 40 items unanswered, which count as wrong or lowest"
    assert verdict.reason.endswith(f"{told}.")
    assert judgement.notes[0].startswith(f"{told}: HTTP 400: The response was filtered")
    document = report_document(judgement)
    assert "was filtered" in document["candidate"]["answers"][0]["unanswered"]
    assert told in document["verdict"]["reason"]
    markdown = report_markdown(judgement)
    assert told in markdown
    assert "| Unanswered items |  | 10 |  |" in markdown
    assert "(unanswered: HTTP 400" in markdown


def test_what_the_baseline_left_unanswered_does_not_make_the_candidate_look_better(tmp_path: Path) -> None:
    """Ten wrong answers of the candidate, against ten items that the baseline's endpoint refuses."""
    suite_ = exact_suite(tmp_path / "suite")
    outputs = {str(n): "wrong" if n >= 30 else f"answer {n}" for n in range(40)}
    candidate = write_outputs(tmp_path / "candidate.jsonl", outputs)
    with StubEndpoint(refusing_prompt(*range(10))) as stub:
        judgement = judge_model(suite_, str(candidate), f"{stub.url}#m", tmp_path / "report")
        judge_model(suite_, f"{stub.url}#m", out=tmp_path / "stored")
    again = judge_model(suite_, str(candidate), tmp_path / "stored" / "report.json")
    for one in (judgement, again):
        assert one.verdict is not None
        (comparison,) = one.verdict.comparisons
        assert (comparison.items, comparison.baseline, comparison.lost) == (30, 1.0, 10)
        assert one.verdict.outcome is Outcome.REGRESSION
        assert "The baseline left 10 of 40 items unanswered, which are left out of the comparison" in one.verdict.reason


def test_an_unanswered_item_is_not_right_where_the_reference_is_empty(tmp_path: Path) -> None:
    write_rows(tmp_path / "items.jsonl", [{"prompt": f"q {n}", "reference": ["", f"answer {n}"]} for n in range(4)])
    (tmp_path / "suite.yaml").write_text(
        "name: e\ntask: generate\nmetrics: [exact_match]\ndata: [{source: items.jsonl, format: prompt}]\n"
    )
    with StubEndpoint(refusing_prompt(1, 2)) as stub:
        judgement = judge_model(load_suite(str(tmp_path / "suite.yaml")), f"{stub.url}#m")
    assert judgement.candidate.metrics["exact_match"].values == (1.0, 0.0, 0.0, 1.0)


def test_judges_give_unanswered_items_the_lowest_grade_and_pairs_leave_out_the_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_judge(monkeypatch, lambda identity: winner("tie") if "first" in identity else json.dumps(GRADES))
    fresh = Settings(use_cache=False)
    with StubEndpoint(refusing_prompt(1, 2)) as stub:
        model = f"{stub.url}#m"
        graded = judge_model(judged_suite(tmp_path / "graded", items=20), model, settings=fresh)
        pairs = judged_suite(tmp_path / "pairs", items=20, grading="pairwise")
        other = write_outputs(tmp_path / "other.jsonl", [f"another answer {n}" for n in range(20)])
        lost = judge_model(pairs, model, str(other), settings=fresh)
        spared = judge_model(pairs, str(other), model, settings=fresh)
    assert graded.candidate.metrics["right"].values[:3] == (1.0, 1.0, 4.0)
    assert [one.verdict.comparisons[0].items for one in (lost, spared) if one.verdict] == [20, 18]
    assert [one.verdict.comparisons[0].candidate for one in (lost, spared) if one.verdict] == [-0.1, 0]


GRADES = {"reason": "fine", "right": 4, "whole": 4}


def test_a_model_that_answers_nothing_cannot_be_judged(tmp_path: Path) -> None:
    with (
        StubEndpoint(lambda body: chat_reply("", finish="content_filter")) as stub,
        pytest.raises(EdgetuneError, match=r"none of the 5 items has an answer .*content filter"),
    ):
        judge_model(exact_suite(tmp_path / "suite", 5), f"{stub.url}#m", right(tmp_path, 5))


def test_refused_prompts_are_asked_again_next_time_and_answers_that_are_there_are_not(tmp_path: Path) -> None:
    refused: list[int] = [1, 2]
    broken = True

    def answer(body: dict[str, Any]) -> Any:
        number = number_of(body)
        if number == 7 and broken:
            return error_reply(500, "down")
        return StubReply(FILTERED, 400) if number in refused else f"answer {number}"

    suite_ = exact_suite(tmp_path / "suite", 8)
    with StubEndpoint(answer) as stub:
        with pytest.raises(EdgetuneError, match="finished answers are kept"):
            judge_model(suite_, f"{stub.url}#m")
        broken, before = False, len(stub.requests)
        refused.clear()
        judgement = judge_model(suite_, f"{stub.url}#m")
        asked = sorted(number_of(request.body) for request in stub.requests[before:])
    assert asked == [1, 2, 7]
    assert all(answer.unanswered is None for answer in judgement.candidate.answers)
