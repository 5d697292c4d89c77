"""Which answers of models under test are taken from the cache, and which are asked for again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.judged import grades, judged_suite, write_outputs
from support.stub_endpoint import StubEndpoint, chat_reply, error_reply
from test_judging_endpoint import items, suite

from edgetune.errors import EdgetuneError
from edgetune.judging.asking.cache import AnswerCache
from edgetune.judging.gate.comparison import Outcome
from edgetune.judging.results.evaluate import ask_subject, plan_answers
from edgetune.judging.run import judge_model
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.endpoint import open_endpoint
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite


class Scripted:
    """A model on this machine that answers as it is told, and counts what it is asked."""

    reference, kind, fingerprint, size_bytes = "scripted", "gguf", "f", None
    runtime: Mapping[str, str] = {}

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self._answer = answer
        self.asked: list[str] = []

    def check(self, items: Sequence[Item], suite: Suite) -> None:
        pass

    def answers(self, items: Sequence[Item], suite: Suite) -> Iterator[Answer]:
        for item in items:
            self.asked.append(item.id)
            yield self._answer(item.id)

    def close(self) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[AnswerCache]:
    with AnswerCache(tmp_path / "cache") as cache:
        yield cache


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (Answer("", text="sun", finish="stop"), True),
        (Answer("", text="sun", finish="length"), True),
        (Answer("", text="sun"), True),
        (Answer("", text="", finish="stop"), True),
        (Answer("", predicted="good"), True),
        (Answer("", nll_nats=1.0), True),
        (Answer("", text="su", finish="content_filter"), False),
        (Answer("", text="su", finish="error"), False),
        (Answer("", text="su", finish="interrupted"), False),
        (Answer(""), False),
    ],
)
def test_an_answer_that_is_not_the_models_own_is_asked_for_again(
    cache: AnswerCache, answer: Answer, kept: bool
) -> None:
    subject = Scripted(lambda name: replace(answer, id=name))
    first = ask_subject(suite(), items(3), subject, cache)
    assert ask_subject(suite(), items(3), subject, cache) == first
    assert subject.asked == ["0", "1", "2"] * (1 if kept else 2)


@pytest.mark.parametrize(
    "row",
    ["{broken", "[]", "{}", '{"text": 7}', '{"text": "x", "seconds": "long"}', '{"text": "x", "finish": "error"}'],
)
def test_a_row_that_is_no_answer_is_asked_for_again(cache: AnswerCache, row: str, tmp_path: Path) -> None:
    subject = Scripted(lambda name: Answer(name, text="sun"))
    ask_subject(suite(), items(2), subject, cache)
    with sqlite3.connect(tmp_path / "cache") as writer:
        writer.execute("UPDATE answers SET value = ?", (row,))
    writer.close()
    assert plan_answers(suite(), items(2), subject, cache).known == {}
    ask_subject(suite(), items(2), subject, cache)
    assert len(plan_answers(suite(), items(2), subject, cache).known) == 2


def answers_of(url: str, file: Path, number: int = 4) -> tuple[Answer, ...]:
    with AnswerCache(file) as cache:
        return ask_subject(suite(), items(number), open_endpoint(f"{url}#small"), cache)


def test_an_endpoint_goes_on_after_an_interrupt_of_this_hour_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After more time other weights may be behind the address."""
    file, works = tmp_path / "cache", [False]

    def answer(body: dict[str, Any]) -> Any:
        if body["messages"][-1]["content"].startswith("q 2") and not works[0]:
            return error_reply(401, "no")
        return "sun"

    with StubEndpoint(answer) as stub:
        with pytest.raises(EdgetuneError):
            answers_of(stub.url, file)
        works[0] = True
        asked = len(stub.requests)
        with sqlite3.connect(file) as reader:
            (kept,) = reader.execute("SELECT count(*) FROM answers").fetchone()
        reader.close()
        answers_of(stub.url, file)
        assert len(stub.requests) == asked + 4 - kept
        said = " ".join(capsys.readouterr().err.split())
        assert (f"{kept} answers are from a run that was interrupted" in said) == (kept > 0)
        answers_of(stub.url, file)
        assert len(stub.requests) == asked + 4 - kept
        with sqlite3.connect(file) as writer:
            writer.execute("UPDATE answers SET stored = stored - 4000")
        writer.close()
        answers_of(stub.url, file)
        assert len(stub.requests) == asked + 8 - kept


@pytest.mark.parametrize("bad", [chat_reply(""), chat_reply(" \n"), chat_reply("su", finish="content_filter")])
def test_what_a_gateway_held_back_is_asked_for_again(tmp_path: Path, bad: Any) -> None:
    asked: list[Any] = []

    def answer(body: Any) -> Any:
        asked.append(body["messages"])
        return chat_reply("sun") if body["messages"] == asked[0] else bad

    with StubEndpoint(answer) as stub:
        answers_of(stub.url, tmp_path / "cache")
        answers_of(stub.url, tmp_path / "cache")
        assert len(stub.requests) == 4 + 3


def test_a_judge_that_is_well_again_is_asked_again_by_the_same_command(tmp_path: Path) -> None:
    """What was read before is kept; what was garbled, and what was not asked any more for that, is asked for."""
    suite = judged_suite(tmp_path / "suite", items=30)
    new = write_outputs(tmp_path / "new.jsonl", [f"answer {n}" for n in range(30)])
    ill, asked = [True], []

    def answer(body: dict[str, Any]) -> str:
        asked.append(1)
        return "<html>bad gateway</html>" if ill[0] and len(asked) <= 3 else grades(4)

    with StubEndpoint(answer) as stub:
        judged = suite.model_copy(update={"judge": f"{stub.url}#stub"})
        before = judge_model(judged, new)
        ill[0] = False
        asked.clear()
        after = judge_model(judged, new)
    assert before.costs.asked < 30  # three decide it, so that nobody asks on
    assert len(asked) == 30 - after.costs.cached
    assert before.verdict is not None
    assert before.verdict.outcome is Outcome.JUDGE_INVALID
    assert after.verdict is None
    assert after.costs.cached == before.costs.asked - 3


def test_an_endpoint_with_other_weights_behind_it_has_a_control_of_its_own(tmp_path: Path) -> None:
    """Its address is the same, so that a judge that has changed since would not be found by old verdicts."""
    old = write_outputs(tmp_path / "old.jsonl", [f"answer {n}" for n in range(12)])
    says = ["one"]

    def answer(body: dict[str, Any]) -> str:
        return grades(4) if body["model"] == "stub" else f"{says[0]} {body['messages'][-1]['content']}"

    with StubEndpoint(answer) as stub:
        suite = judged_suite(tmp_path / "suite", items=12, judge=f"{stub.url}#stub")
        judged = []
        for word in ("one", "one", "two"):
            says[0] = word
            before = len(stub.requests)
            judge_model(suite, f"{stub.url}#small", old)
            judged.append(sum(request.body["model"] == "stub" for request in stub.requests[before:]))
    assert judged == [36, 0, 24]
