"""Reasoning models under test and as judges: the answer counts, what was cut off or empty is told, no draft decides."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandResult
from gguf import TokenType
from support.judged import JUDGE, grades, judged_suite, put_judge, write_outputs, write_rows
from support.parrot import TEMPLATE, write_parrot
from support.stub_endpoint import StubEndpoint, chat_reply, token_logprob

from edgetune.judging.asking.request import Failed
from edgetune.judging.gate.gate import Outcome
from edgetune.judging.report import report_document, report_html, report_markdown
from edgetune.judging.results.endings import Endings, count_endings
from edgetune.judging.run import judge_model
from edgetune.judging.settings import Settings
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.gguf import open_gguf
from edgetune.judging.subjects.registry import open_subject
from edgetune.judging.suites.items import Item, read_items
from edgetune.judging.suites.suite import Suite, load_suite

FRESH = Settings(use_cache=False)
GOLD = [f"city {number}" for number in range(1, 31)]


def exact_suite(folder: Path, **settings: Any) -> Suite:
    """Thirty questions with one right answer each."""
    rows = [{"prompt": f"question {n}", "reference": gold} for n, gold in enumerate(GOLD, start=1)]
    write_rows(folder / "items.jsonl", rows)
    values = {
        "name": "exact",
        "task": "generate",
        "data": [{"source": "items.jsonl", "format": "prompt"}],
        "metrics": ["exact_match"],
        **settings,
    }
    (folder / "suite.yaml").write_text(json.dumps(values))
    return load_suite(str(folder / "suite.yaml"))


def notes_of(judgement: Any) -> str:
    return "\n".join(judgement.notes)


# Models under test


@pytest.mark.parametrize(
    "thought",
    [
        "<think>\nIs it Rome?\n</think>\n\n{}",
        "Is it Rome?\n</think>\n\n{}",
        "[THINK]Is it Rome?[/THINK]{}",
        "<thinking>Is it Rome?</thinking>\n{}",
        "<|channel|>analysis<|message|>Is it Rome?<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
        "<THINK>Is it Rome?</THINK>\n<answer>{}</answer>",
    ],
)
def test_metrics_see_the_answer_and_the_report_keeps_the_reasoning(tmp_path: Path, thought: str) -> None:
    suite = exact_suite(tmp_path)
    new = write_outputs(tmp_path / "new.jsonl", [thought.format(gold) for gold in GOLD])
    old = write_outputs(tmp_path / "old.jsonl", GOLD)
    judgement = judge_model(suite, new, old, settings=FRESH)
    assert judgement.candidate.metrics["exact_match"].value == 1
    assert judgement.candidate.answers[0].text == "city 1"
    assert judgement.candidate.answers[0].reasoning == "Is it Rome?"
    assert "candidate: reasoning was separated from 30 of 30 answers" in notes_of(judgement)
    assert "baseline: reasoning" not in notes_of(judgement)
    document = report_document(judgement)
    assert document["candidate"]["answers"][3]["reasoning"] == "Is it Rome?"
    assert document["endings"]["candidate"]["with_reasoning"] == 30
    assert '"reasoning":"Is it Rome?"' in report_html(judgement)


def test_labels_are_read_from_what_follows_the_reasoning(tmp_path: Path) -> None:
    write_rows(tmp_path / "items.jsonl", [{"text": f"t {n}", "label": "good"} for n in range(4)])
    data = [{"source": "items.jsonl", "format": "text-label"}]
    values = {"name": "s", "task": "classify", "data": data, "labels": ["good", "bad"], "prompt": "{text}"}
    (tmp_path / "suite.yaml").write_text(json.dumps(values))
    suite = load_suite(str(tmp_path / "suite.yaml"))
    texts = ["<think>bad? No.</think>good", "bad or good...\n</think>\nGood.", "<think>good", "good"]
    new = write_outputs(tmp_path / "new.jsonl", texts)
    with open_subject(str(new)) as subject:
        answers = list(subject.answers(read_items(suite), suite))
    assert [answer.predicted for answer in answers] == ["good", "good", None, "good"]


def test_an_answer_about_the_marks_of_reasoning_is_left_alone(tmp_path: Path) -> None:
    suite = exact_suite(tmp_path)
    texts = ["Write `<think>` first.", "```\n<think>\nhm\n</think>\n```", "To close it, write </think>."] * 10
    judgement = judge_model(suite, write_outputs(tmp_path / "new.jsonl", texts), settings=FRESH)
    assert [answer.text for answer in judgement.candidate.answers] == texts
    assert "reasoning" not in notes_of(judgement)


def spoken(text: str | None, finish: str, **message: str) -> dict[str, Any]:
    reply = chat_reply(text, finish=finish)
    reply["choices"][0]["message"] |= message
    return reply


def test_an_endpoints_reasoning_is_kept_apart_and_cut_off_or_empty_answers_are_counted(tmp_path: Path) -> None:
    suite = exact_suite(tmp_path)

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        number = int(body["messages"][-1]["content"].split()[-1])
        if number <= 4:
            return spoken(None, "length", reasoning_content="hm, hm")
        if number == 5:
            return spoken("", "stop")
        if number == 6:
            return spoken("city", "MAX_TOKENS")
        return spoken(f"city {number}", "stop", reasoning="hm")

    with StubEndpoint(answer) as stub:
        judgement = judge_model(suite, f"{stub.url}#m", settings=FRESH)
    assert judgement.candidate.metrics["exact_match"].value == pytest.approx(24 / 30)
    assert (judgement.candidate.answers[0].text, judgement.candidate.answers[0].reasoning) == ("", "hm, hm")
    assert judgement.candidate.answers[9].reasoning == "hm"
    told = notes_of(judgement)
    assert "candidate: 5 of 30 answers were cut off, 4 of them before any answer." in told
    assert "a generation.max_tokens above 256 would let them finish" in told
    assert "candidate: 5 of 30 answers are empty." in told
    assert report_document(judgement)["endings"]["candidate"] == {
        "answers": 30,
        "cut_off": 5,
        "empty": 5,
        "cut_off_and_empty": 4,
        "with_reasoning": 28,
    }
    for shown in (report_markdown(judgement), report_html(judgement)):
        assert "5 of 30 answers were cut off" in shown
        assert "5 of 30 answers are empty" in shown


def test_the_command_line_tells_it_of_both_sides(tmp_path: Path, edgetune_command: Any) -> None:
    exact_suite(tmp_path)
    new = write_outputs(tmp_path / "new.jsonl", ["<think>so", *GOLD[1:]])
    old = write_rows(
        tmp_path / "old.jsonl",
        [
            {"id": str(n), "output": gold, "finish_reason": "length" if n < 3 else "stop"}
            for n, gold in enumerate(GOLD, 1)
        ],
    )
    result: CommandResult = edgetune_command("judge", tmp_path / "suite.yaml", "--model", new, "--baseline", old)
    told = " ".join((result.stdout + result.stderr).split())
    assert "candidate: 1 of 30 answers was cut off, 1 of them before any answer" in told
    assert "candidate: 1 of 30 answers is empty" in told
    assert "baseline: 2 of 30 answers were cut off." in told
    assert "outputs written with more tokens would let them finish" in told


def test_two_models_that_never_came_to_an_answer_are_not_called_equal(tmp_path: Path) -> None:
    suite = exact_suite(tmp_path, gate={"margin": 0.5})
    texts = [f"<think>perhaps {gold}" for gold in GOLD]
    new = write_outputs(tmp_path / "new.jsonl", texts)
    old = write_outputs(tmp_path / "old.jsonl", [f"{text}?" for text in texts])
    judgement = judge_model(suite, new, old, settings=FRESH)
    assert judgement.verdict is not None
    assert judgement.verdict.outcome is Outcome.JUDGE_INVALID
    assert "On 30 of 30 items both models were cut off before any answer" in judgement.verdict.reason
    half = write_outputs(tmp_path / "half.jsonl", [*texts[:15], *GOLD[15:]])
    verdict = judge_model(suite, half, old, settings=FRESH).verdict
    assert verdict is not None
    assert verdict.outcome is not Outcome.JUDGE_INVALID


def test_endings_are_counted_of_texts_alone() -> None:
    answers = [
        Answer("a", text="x", finish="stop"),
        Answer("b", text=" \n", finish="length"),
        Answer("c", text="", reasoning="hm", finish="reasoning"),
        Answer("d", text="x", finish="context", reasoning=""),
        Answer("e", predicted="good"),
    ]
    assert count_endings(answers) == Endings(4, cut_off=3, empty=2, cut_off_and_empty=2, with_reasoning=1)


def test_a_report_of_an_earlier_version_has_its_reasoning_separated(tmp_path: Path) -> None:
    suite = exact_suite(tmp_path)
    old = write_outputs(tmp_path / "old.jsonl", GOLD)
    judge_model(suite, old, out=tmp_path / "report", settings=FRESH)
    report = tmp_path / "report" / "report.json"
    document = json.loads(report.read_text())
    document["format"] = "edgetune judge report 2"
    for answer in document["candidate"]["answers"]:
        answer["text"] = f"<think>hm</think>{answer['text']}"
        del answer["reasoning"]
    report.write_text(json.dumps(document))
    judgement = judge_model(suite, old, str(report), settings=FRESH)
    assert judgement.baseline is not None
    assert judgement.baseline.metrics["exact_match"].value == 1
    assert judgement.baseline.answers[0].reasoning == "hm"


@pytest.fixture(scope="module")
def asked() -> tuple[Suite, list[Item]]:
    data = [{"source": "x.jsonl", "format": "prompt"}]
    suite = Suite.model_validate({"name": "s", "task": "generate", "data": data, "generation": {"max_tokens": 3}})
    from edgetune.data.example import Message

    return suite, [Item("1", "x.jsonl:1", "hi", (Message("user", "hi"),))]


def test_a_gguf_whose_template_begins_the_reasoning_has_no_answer_before_its_end(
    tmp_path: Path, asked: tuple[Suite, list[Item]]
) -> None:
    template = TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}"
    subject = open_gguf(str(write_parrot(tmp_path / "p.gguf", "hm", template=template)), threads=1)
    (answer,) = subject.answers(asked[1], asked[0])
    subject.close()
    assert (answer.text, answer.reasoning, answer.finish) == ("", "hmhmhm", "length")
    assert answer.is_cut_off
    assert answer.is_empty


def test_marks_that_are_control_tokens_of_a_gguf_are_seen(tmp_path: Path, asked: tuple[Suite, list[Item]]) -> None:
    file = write_parrot(tmp_path / "p.gguf", "[THINK]", kind=TokenType.CONTROL)
    subject = open_gguf(str(file), threads=1)
    (answer,) = subject.answers(asked[1], asked[0])
    subject.close()
    assert (answer.text, answer.reasoning, answer.generated_tokens) == ("", "[THINK][THINK]", 3)


# Judges


def graded(folder: Path, judge: Any, patch: pytest.MonkeyPatch, **settings: Any) -> Any:
    """A candidate and a baseline of thirty answers, graded by what `judge` makes of an answer."""
    suite = judged_suite(folder / "suite", items=30, **settings)
    new = write_outputs(folder / "new.jsonl", [f"answer {n}" for n in range(30)])
    old = write_outputs(folder / "old.jsonl", [f"answer {n}." for n in range(30)])
    put_judge(patch, judge)
    return judge_model(suite, new, old, settings=FRESH)


@pytest.mark.parametrize(
    "thought", ["Draft: {}\n</think>\n{}", "[THINK]{}[/THINK]{}", "<thinking>{}</thinking>\n{}", "<THINK>{}</THINK>{}"]
)
def test_the_draft_of_a_reasoning_judge_is_never_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thought: str
) -> None:
    def judge(identity: Mapping[str, Any]) -> str:
        return thought.format(grades(5), grades(2 if identity["answer"].endswith(".") else 4))

    judgement = graded(tmp_path, judge, monkeypatch)
    assert {score for grade in judgement.candidate.grades for score in grade.scores.values()} == {4.0}
    assert {score for grade in judgement.baseline.grades for score in grade.scores.values()} == {2.0}


def test_a_judge_that_only_drafts_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judgement = graded(tmp_path, lambda identity: f"{grades(5)}\n</think>\n", monkeypatch)
    assert judgement.exit_code == 4
    assert "the judge's text ended before its verdict" in judgement.verdict.reason


def judges_at(folder: Path, *urls: str, **settings: Any) -> tuple[str, ...]:
    files = []
    for number, url in enumerate(urls, start=1):
        values = {"name": f"judge {number}", "model": "m", "url": url, "key": None, "connections": 1, **settings}
        file = folder / f"judge{number}.yaml"
        file.write_text(json.dumps(values))
        files.append(str(file))
    return tuple(files)


def answers_in(folder: Path, name: str, items: int) -> Path:
    return write_outputs(folder / f"{name}.jsonl", [f"the {name} answer {n}" for n in range(items)])


@pytest.mark.parametrize(
    ("items", "unreadable", "asked"),
    [
        (40, 2, 40),  # 2 of 40 are no more than 5 %
        (40, 3, 3),  # the third decides, whatever the other 37 would be
        (10, 1, 1),  # of so few the first one does
        (40, 40, 3),
    ],
)
def test_a_judge_is_asked_as_long_as_it_could_still_be_valid(
    tmp_path: Path, items: int, unreadable: int, asked: int
) -> None:
    suite, new = judged_suite(tmp_path / "suite", items=items), answers_in(tmp_path, "new", items)
    with StubEndpoint(lambda body: "I cannot say." if len(stub.requests) <= unreadable else grades(4)) as stub:
        judgement = judge_model(suite, new, settings=Settings(judges_at(tmp_path, stub.url), use_cache=False))
        assert len(stub.requests) == asked
    assert judgement.costs.asked == asked
    assert judgement.exit_code == (4 if unreadable / items > 0.05 else 0)
    if asked < items:
        assert judgement.verdict is not None
        (problem, *_) = judgement.verdict.problems
        assert f"{asked} of the first {asked} verdicts are unscored" in problem
        assert f"5.0% of {items} may be, so the judge was not asked for the other {items - asked}" in problem


def test_all_that_a_judge_will_be_asked_counts_and_its_repeats_too(tmp_path: Path) -> None:
    suite = judged_suite(tmp_path / "suite", items=20)
    new, old = answers_in(tmp_path, "new", 20), answers_in(tmp_path, "old", 20)
    with StubEndpoint(lambda body: "I cannot say.") as stub:
        settings = Settings(judges_at(tmp_path, stub.url, repeats=2), use_cache=False)
        judgement = judge_model(suite, new, old, settings=settings)
        assert len(stub.requests) == 7  # 20 candidates, 20 baselines, 20 controls, twice each: 6 of 120 are 5 %
    assert judgement.exit_code == 4


def test_a_panel_ends_with_the_first_judge_that_is_certain_to_be_invalid(tmp_path: Path) -> None:
    suite, new = judged_suite(tmp_path / "suite", items=40), answers_in(tmp_path, "new", 40)
    with StubEndpoint(lambda body: "I cannot say.") as bad, StubEndpoint(lambda body: grades(4)) as good:
        judges = judges_at(tmp_path, bad.url, good.url)
        judgement = judge_model(suite, new, settings=Settings(judges, use_cache=False))
        assert (len(bad.requests), len(good.requests)) == (3, 0)
        assert judgement.verdict is not None
        assert all(problem.startswith("judge 1: ") for problem in judgement.verdict.problems)
        assert "judge 2: 40 of 40 verdicts were not asked any more: judge 1 is invalid already." in judgement.notes


def test_what_was_scored_before_a_judge_was_stopped_is_not_asked_again(tmp_path: Path) -> None:
    suite, new = judged_suite(tmp_path / "suite", items=40), answers_in(tmp_path, "new", 40)
    broken = True
    with StubEndpoint(lambda body: "?" if broken and len(stub.requests) > 10 else grades(4)) as stub:
        settings = Settings(judges_at(tmp_path, stub.url))
        assert judge_model(suite, new, settings=settings).exit_code == 4
        assert len(stub.requests) == 13
        broken = False
        judgement = judge_model(suite, new, settings=settings)
        assert judgement.costs.cached >= 10


def test_a_limit_of_everything_stops_no_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = judged_suite(tmp_path / "suite", items=12, gate={"max_unscored": 1.0}, judge=JUDGE)
    put_judge(monkeypatch, lambda identity: Failed("no"))
    assert judge_model(suite, answers_in(tmp_path, "new", 12), settings=FRESH).exit_code == 0


def test_expected_grades_are_those_of_the_verdict_whatever_reasoning_and_reason_mention(tmp_path: Path) -> None:
    suite, new = judged_suite(tmp_path / "suite", items=2), answers_in(tmp_path, "new", 2)
    sure = {"5": math.log(0.9), "4": math.log(0.1)}
    tokens = [
        *(
            token_logprob(piece, {piece: 0.0})
            for piece in ("So", " right", ": ", "1", ", whole: 1", "</think>", "\n\n")
        ),
        token_logprob('{"right": ', {}),
        token_logprob("5", sure),
        token_logprob(', "whole": ', {}),
        token_logprob("5", {"5": 0.0}),
        *(
            token_logprob(piece, {piece: 0.0})
            for piece in (', "reason": "Gut – right', ": ", "1", ' needs an error."}')
        ),
        token_logprob("<|im_end|>", {}),
    ]
    text = '{"right": 5, "whole": 5, "reason": "Gut – right: 1 needs an error."}'
    reply = chat_reply(text, logprobs=tokens)
    reply["choices"][0]["message"]["reasoning_content"] = "So right: 1, whole: 1"
    with StubEndpoint(lambda body: reply) as stub:
        judgement = judge_model(suite, new, settings=Settings(judges_at(tmp_path, stub.url), use_cache=False))
    assert judgement.candidate.grades[0].scores == pytest.approx({"right": 4.9, "whole": 5.0})
    assert judgement.candidate.grades[0].expected
