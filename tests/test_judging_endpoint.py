"""Judges and models behind OpenAI-compatible endpoints: a programmable stub, and llama-cpp-python's real server."""

from __future__ import annotations

import _thread
import asyncio
import json
import logging
import math
import os
import re
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from support.asked import FORM, KEY, VERDICT, ask, items, judge_at, number_of, question, suite
from support.children import free_port
from support.stub_endpoint import StubEndpoint, StubReply, chat_reply, error_reply, token_logprob

from edgetune.data.example import Message
from edgetune.errors import EdgetuneError, Interrupted, UsageError
from edgetune.judging.asking.cost import Budget
from edgetune.judging.asking.request import Failed, JudgeRequest, Reply
from edgetune.judging.asking.schedule import ask_all
from edgetune.judging.subjects.endpoint import open_endpoint, recognizes
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.judge_file import LocalJudge

pytestmark = pytest.mark.usefixtures("quick_backoff")


def test_replies_come_in_order_over_as_many_connections_as_the_judge_says() -> None:
    with StubEndpoint(lambda body: f"answer {number_of(body)}", latency=0.02) as stub:
        replies, _ = ask(stub, 30, connections=6)
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [f"answer {n}" for n in range(30)]
    assert stub.most_at_once == 6


def test_the_strictest_form_is_asked_for_and_the_judge_file_shapes_the_request() -> None:
    with StubEndpoint(lambda body: VERDICT) as stub:
        ask(stub, temperature=0.3, max_tokens=77, model="grader-1")
    body = stub.requests[0].body
    assert body["response_format"]["json_schema"]["schema"] == FORM.json_schema()
    assert body["response_format"]["json_schema"]["strict"] is True
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("grader-1", 0.3, 77)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert "authorization" not in stub.requests[0].headers


def test_half_a_surrogate_pair_in_what_is_judged_breaks_nothing() -> None:
    with StubEndpoint(lambda body: VERDICT) as stub:
        (reply,) = ask_all([question(1, "\ud83d ☃ ")], judge_at(stub.url), cache=None)
        (answer,) = open_endpoint(f"{stub.url}#m").answers(
            [Item("1", "x", "x", (Message("user", "\ud83d ☃"),))], suite()
        )
    assert isinstance(reply, Reply)
    assert answer.text == VERDICT
    assert stub.requests[0].body["messages"][0]["content"] == "? ☃ grade 1"


def test_usage_price_and_probabilities_are_in_the_reply() -> None:
    tokens = [
        token_logprob('{"reason": "fine", "correctness": ', {}),
        token_logprob("4", {"4": math.log(0.75), "3": math.log(0.25)}),
    ]
    with StubEndpoint(lambda body: chat_reply(VERDICT, logprobs=tokens, usage=(1000, 100))) as stub:
        (reply,), notes = ask(stub, price={"input": 2, "output": 10})
    assert isinstance(reply, Reply)
    assert reply.probabilities["correctness"]["3"] == pytest.approx(0.25)
    assert (reply.input_tokens, reply.output_tokens) == (1000, 100)
    assert reply.cost_usd == pytest.approx(0.003)
    assert notes == []


def test_a_notebook_whose_event_loop_runs_already_can_judge_too() -> None:
    async def cell() -> tuple[list[Reply | Failed], list[str | None]]:
        replies, _ = ask(stub, 3)
        return replies, [answer.text for answer in open_endpoint(f"{stub.url}#m").answers(items(3), suite())]

    with StubEndpoint(lambda body: f"answer {number_of(body)}") as stub:
        replies, texts = asyncio.run(cell())
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == texts == [f"answer {n}" for n in range(3)]


# What an endpoint does not understand


def refusing(**rules: Any):
    """An endpoint that refuses the parameters for which a rule is true, naming them as OpenAI does."""

    def answer(body: dict[str, Any]) -> Any:
        for name, refused in rules.items():
            if name in body and refused(body[name]):
                return StubReply(
                    {"error": {"message": f"Unsupported value: '{name}'", "param": name, "code": "unsupported_value"}},
                    400,
                )
        return VERDICT

    return answer


def test_an_endpoint_without_schemas_or_probabilities_is_asked_in_its_own_way_and_that_is_told_once() -> None:
    rules = {"response_format": lambda form: form["type"] == "json_schema" or "schema" in form, "logprobs": bool}
    with StubEndpoint(refusing(**rules)) as stub:
        replies, notes = ask(stub, 20)
    assert all(isinstance(reply, Reply) for reply in replies)
    assert stub.requests[-1].body["response_format"] == {"type": "json_object"}
    assert "logprobs" not in stub.requests[-1].body
    refused = len(stub.requests) - 20
    assert 1 < refused <= 5, "found out once, not by every request"
    assert len(notes) == 2
    assert "schema" in notes[0]
    assert "probabilities" in notes[1]


def test_fewer_alternatives_are_asked_for_where_twenty_are_too_many() -> None:
    with StubEndpoint(refusing(top_logprobs=lambda many: many > 5)) as stub:
        ask(stub, 3)
    assert stub.requests[-1].body["top_logprobs"] == 5


def test_a_reasoning_model_takes_its_own_names_and_temperature() -> None:
    everything = lambda value: True  # noqa: E731
    with StubEndpoint(refusing(max_tokens=everything, temperature=everything, logprobs=everything)) as stub:
        (reply,), notes = ask(stub)
    assert isinstance(reply, Reply)
    assert stub.requests[-1].body["max_completion_tokens"] == 512
    assert "temperature" not in stub.requests[-1].body
    assert stub.requests[-1].body["response_format"]["type"] == "json_schema"
    assert any("temperature" in note for note in notes)


@pytest.mark.parametrize("status", [400, 422, 501])
@pytest.mark.parametrize("disliked", ["response_format", "logprobs"])
def test_a_refusal_that_names_nothing_costs_only_what_is_not_understood(status: int, disliked: str) -> None:
    with StubEndpoint(lambda body: StubReply("no", status) if disliked in body else VERDICT) as stub:
        (reply,), _ = ask(stub)
    assert isinstance(reply, Reply)
    last = stub.requests[-1].body
    assert ("response_format" in last) == (disliked != "response_format")
    assert ("logprobs" in last) == (disliked != "logprobs")


def test_two_things_that_are_not_understood_are_found_out_without_being_named() -> None:
    with StubEndpoint(
        lambda body: StubReply("no", 400) if {"response_format", "logprobs"} & set(body) else VERDICT
    ) as stub:
        (reply,), _ = ask(stub)
    assert isinstance(reply, Reply)
    assert set(stub.requests[-1].body) == {"model", "messages", "max_tokens", "temperature"}


def test_a_prompt_that_is_too_long_fails_alone_and_changes_nothing() -> None:
    def answer(body: dict[str, Any]) -> Any:
        if number_of(body) in (0, 7):
            return error_reply(400, "This model's maximum context length is 10 tokens", code="context_length_exceeded")
        return VERDICT

    with StubEndpoint(answer) as stub:
        replies, notes = ask(stub, 10)
    assert [number for number, reply in enumerate(replies) if isinstance(reply, Failed)] == [0, 7]
    assert len(stub.requests) == 10
    assert stub.requests[-1].body["response_format"]["type"] == "json_schema"
    assert not any("schema" in note for note in notes)


def test_a_form_that_the_judge_file_demands_is_not_weakened() -> None:
    with StubEndpoint(refusing(response_format=bool)) as stub:
        with pytest.raises(EdgetuneError, match=r"does not take structured: json_schema.*structured: auto"):
            ask(stub, 10, structured="json_schema")
        assert len(stub.requests) == 1


def test_an_endpoint_that_refuses_everything_ends_the_run() -> None:
    with (
        StubEndpoint(lambda body: error_reply(400, "I do not like it")) as stub,
        pytest.raises(EdgetuneError, match="do not like"),
    ):
        ask(stub, 100)


# What can never succeed


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (error_reply(401, "Incorrect API key"), "key"),
        (error_reply(403, "Country not supported"), "403"),
        (error_reply(404, "The model does not exist", code="model_not_found"), "no model grader"),
        (StubReply("<html>Not found</html>", 404), "/v1"),
        (error_reply(429, "You exceeded your quota", code="insufficient_quota"), "billing"),
        (error_reply(402, "Payment required"), "billing"),
    ],
)
def test_what_no_request_can_get_past_ends_the_run_at_once(answer: StubReply, says: str) -> None:
    with StubEndpoint(lambda body: answer) as stub:
        with pytest.raises(EdgetuneError, match=says) as caught:
            ask(stub, 50, model="grader")
        assert len(stub.requests) == 1
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("client", ["aiohttp", "httpx2"])
def test_nobody_at_the_address_is_told_within_a_few_tries(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    choose_client(client, monkeypatch)
    with pytest.raises(EdgetuneError, match=r"stub: the endpoint cannot be reached .*check the URL"):
        ask_all([question(n) for n in range(50)], judge_at(f"http://127.0.0.1:{free_port()}/v1"), cache=None)
    with pytest.raises(EdgetuneError, match="the endpoint cannot be reached"):
        ask_all([question(1)], judge_at("http://no-such-host.invalid/v1"), cache=None)


def test_a_missing_or_mangled_key_is_told_before_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with StubEndpoint(lambda body: VERDICT) as stub:
        with pytest.raises(UsageError, match=r"GRADER_KEY.*not set.*export GRADER_KEY"):
            ask(stub, key="GRADER_KEY")
        monkeypatch.setenv("GRADER_KEY", "“smart-secret”")
        with pytest.raises(UsageError, match="characters that no key has") as caught:
            ask(stub, key="GRADER_KEY")
        assert "smart-secret" not in str(caught.value)
        assert stub.requests == []


def test_the_key_is_sent_and_appears_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRADER_KEY", f"{KEY}\n")
    caplog.set_level(logging.DEBUG)

    def echo(status: int):
        return lambda body: error_reply(status, f"bad call with {dict(stub.requests[-1].headers)}")

    said: list[str] = []
    for status in (400, 401, 500):
        with StubEndpoint(echo(status)) as stub:
            assert stub.requests == []
            try:
                replies, notes = ask(stub, 2, key="GRADER_KEY", attempts=2)
                said += [repr(replies), *notes]
            except EdgetuneError as problem:
                said += traceback.format_exception(problem)
            assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in stub.requests)
    with StubEndpoint(lambda body: StubReply(f"garbage {KEY}")) as stub:
        said.append(repr(ask(stub, key="GRADER_KEY", attempts=1)))
    captured = capfd.readouterr()
    said += [captured.out, captured.err, caplog.text]
    assert "bad call" in "".join(said)
    assert KEY not in "".join(said)


# What may pass


def choose_client(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the two HTTP clients: aiohttp where it is installed, httpx2 otherwise."""
    if client == "aiohttp":
        pytest.importorskip("aiohttp")
    else:
        monkeypatch.setattr("openai.DefaultAioHttpClient", Mock(side_effect=RuntimeError("aiohttp is not installed")))


@pytest.mark.parametrize("client", ["aiohttp", "httpx2"])
@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (StubReply("", cut=-1), "the connection was lost"),
        (StubReply(chat_reply(VERDICT), cut=40), "the connection was lost"),
        (StubReply(chat_reply(VERDICT), delay=5.0), r"no answer within 0\.2 s"),
        (StubReply("<html>hello</html>"), "not JSON: hello"),
        (StubReply(""), "not JSON: nothing"),
    ],
)
def test_a_failure_says_what_happened_and_never_that_nobody_is_there(
    trouble: StubReply, says: str, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose_client(client, monkeypatch)
    with StubEndpoint(lambda body: trouble) as stub:
        (reply,), _ = ask(stub, timeout_seconds=0.2, attempts=4)
    assert isinstance(reply, Failed)
    assert re.search(f"{says}.* after 4 attempts", reply.reason)


@pytest.mark.parametrize(
    "trouble",
    [
        error_reply(500, "oops"),
        error_reply(503, "busy"),
        error_reply(429, "slow down"),
        StubReply("<html>hello</html>"),
        StubReply(chat_reply(VERDICT), cut=40),
        StubReply("", cut=-1),
        StubReply(""),
        StubReply({"choices": []}),
        StubReply("plain text", headers={"content-encoding": "gzip"}),
        StubReply(chat_reply(VERDICT), delay=5.0),
    ],
    ids=["500", "503", "429", "garbage", "half a body", "hung up", "nothing", "no choices", "no gzip", "timeout"],
)
@pytest.mark.parametrize("client", ["aiohttp", "httpx2"])
def test_trouble_passes_or_leaves_one_question_unanswered(
    trouble: StubReply, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose_client(client, monkeypatch)
    seen = count()
    with StubEndpoint(lambda body: trouble if next(seen) < 2 else VERDICT) as stub:
        (reply,), _ = ask(stub, timeout_seconds=0.3)
        assert isinstance(reply, Reply), reply
        assert len(stub.requests) == 3
    with StubEndpoint(lambda body: trouble if number_of(body) == 1 else VERDICT) as stub:
        replies, _ = ask(stub, 3, attempts=2, timeout_seconds=0.3)
    assert [type(reply) for reply in replies] == [Reply, Failed, Reply]
    assert isinstance(replies[1], Failed)
    assert "after 2 attempts" in replies[1].reason


def test_a_judge_whose_reasoning_came_to_no_verdict_is_told_as_such() -> None:
    reply = chat_reply(None)
    reply["choices"][0]["message"]["reasoning_content"] = VERDICT
    with StubEndpoint(lambda body: reply) as stub:
        (failed,), _ = ask(stub)
    assert isinstance(failed, Failed)
    assert "reasoning ended before its verdict" in failed.reason


@pytest.mark.parametrize(("finish", "says"), [("length", "cut off after 512 tokens"), ("content_filter", "filter")])
def test_a_verdict_that_was_cut_off_or_filtered_is_no_verdict(finish: str, says: str) -> None:
    with StubEndpoint(lambda body: chat_reply(VERDICT, finish=finish)) as stub:
        (reply,), _ = ask(stub)
        assert len(stub.requests) == 1
    assert isinstance(reply, Failed)
    assert says in reply.reason


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_retry_after_is_honoured_by_all_requests(kind: str) -> None:
    times: list[float] = []

    def answer(body: dict[str, Any]) -> Any:
        times.append(time.monotonic())
        if len(times) > 1:
            return VERDICT
        when = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)  # whole seconds: 1 to 2 from now
        return error_reply(429, "wait", headers={"retry-after": "1" if kind == "seconds" else when})

    with StubEndpoint(answer) as stub:
        replies, _ = ask(stub, 8)
    assert all(isinstance(reply, Reply) for reply in replies)
    assert min(times[1:]) - times[0] >= 0.95


def test_a_server_that_asks_for_an_hour_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("chat", "retry"):
        monkeypatch.setattr(f"edgetune.judging.asking.{module}.LONGEST_WAIT_SECONDS", 0.05)
    with StubEndpoint(lambda body: error_reply(429, "wait", headers={"retry-after": "3600"})) as stub:
        (reply,), notes = ask(stub, attempts=3)
    assert isinstance(reply, Failed)
    assert len([note for note in notes if "3600" in note]) == 1


def test_requests_keep_to_the_rate_of_the_judge() -> None:
    with StubEndpoint(lambda body: VERDICT) as stub:
        started = time.monotonic()
        ask(stub, 10, requests_per_minute=1200)
        assert time.monotonic() - started >= 9 * 0.05


def test_an_endpoint_that_is_down_is_not_asked_thousands_of_times() -> None:
    with StubEndpoint(lambda body: error_reply(500, "down for repair")) as stub:
        with pytest.raises(EdgetuneError, match=r"in a row failed.*down for repair"):
            ask(stub, 1000, attempts=2)
        assert len(stub.requests) < 60


# What it costs


def test_a_cap_on_the_cost_holds_keeps_what_is_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    from edgetune.judging.asking.cache import AnswerCache

    price = {"input": 0.0, "output": 1000.0}  # 0.02 for an answer of 20 tokens, 0.032 at most
    with StubEndpoint(lambda body: VERDICT, latency=0.005) as stub, AnswerCache(tmp_path / "cache") as cache:
        judge = judge_at(stub.url, price=price, max_tokens=32)
        requests = [question(number) for number in range(40)]
        with pytest.raises(EdgetuneError) as caught:
            ask_all(requests, judge, cache=cache, budget=Budget(0.25))
        first = len(stub.requests)
        assert first == 11, "the twelfth could cost 0.032 after 0.22"
        assert caught.value.exit_code == 2
        for words in ("11 of 40", "$0.22", "higher --max-cost"):
            assert words in str(caught.value)
        budget = Budget(2.0)
        replies = ask_all(requests, judge, cache=cache, budget=budget)
        assert len(stub.requests) == 40
    assert budget.spent_usd == pytest.approx(29 * 0.02)
    assert sum(reply.cached for reply in replies if isinstance(reply, Reply)) == 11


def test_a_call_whose_end_is_not_seen_counts_as_its_worst_case() -> None:
    budget = Budget()
    price = {"input": 0.0, "output": 1000.0}
    with StubEndpoint(lambda body: StubReply(VERDICT, delay=3.0)) as stub:
        judge = judge_at(stub.url, price=price, max_tokens=32, attempts=2, timeout_seconds=0.1)
        ask_all([question(1)], judge, cache=None, budget=budget)
    assert budget.spent_usd == pytest.approx(2 * 0.032)


def test_a_cap_without_a_price_is_refused_before_any_call() -> None:
    with StubEndpoint(lambda body: VERDICT) as stub:
        with pytest.raises(UsageError, match="this judge has none"):
            ask_all([question(1)], judge_at(stub.url), cache=None, budget=Budget(1.0))
        assert stub.requests == []


def test_ctrl_c_says_what_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edgetune.judging.asking.cache import AnswerCache

    def answer(body: dict[str, Any]) -> Any:
        if number_of(body) == 5:
            _thread.interrupt_main()
            return StubReply(chat_reply(VERDICT), delay=5.0)
        return VERDICT

    with StubEndpoint(answer) as stub, AnswerCache(tmp_path / "cache") as cache:
        with pytest.raises(Interrupted, match=r"of 30 verdicts.*continues from there"):
            ask_all([question(number) for number in range(30)], judge_at(stub.url, connections=1), cache=cache)
        assert len(stub.requests) == 6


# Models under test


def test_a_judge_on_this_machine_is_asked_one_by_one_and_kept_like_any_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgetune.judging.asking.cache import AnswerCache

    asked: list[JudgeRequest] = []

    class Client:
        def __init__(self, judge: LocalJudge, threads: int | None = None) -> None:
            assert threads == 3

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *problem: object) -> None:
            pass

        def ask(self, request: JudgeRequest) -> Reply | Failed:
            asked.append(request)
            if len(asked) == 3:
                raise KeyboardInterrupt
            return Reply(VERDICT)

    monkeypatch.setitem(sys.modules, "edgetune.judging.asking.local", SimpleNamespace(LocalClient=Client))
    (tmp_path / "judge.gguf").write_bytes(b"GGUF")
    judge = LocalJudge(name="here", model=str(tmp_path / "judge.gguf"))
    requests = [question(number) for number in range(5)]
    with AnswerCache(tmp_path / "cache") as cache:
        with pytest.raises(Interrupted, match=r"2 of 5 verdicts, \$0\.0000 spent.*continues from there"):
            ask_all(requests, judge, cache=cache, budget=Budget(0.0), threads=3)
        replies = ask_all(requests, judge, cache=cache, budget=Budget(0.0), threads=3)
    assert [reply.cached for reply in replies if isinstance(reply, Reply)] == [True, True, False, False, False]


CLASSIFY = {
    "task": "classify",
    "data": [{"source": "x.jsonl", "format": "text-label"}],
    "labels": ["good", "bad"],
    "prompt": "{text}?",
    "scoring": "generate",
}


def test_a_model_behind_an_endpoint_answers_in_order_with_the_suites_generation() -> None:
    generation = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.8, "seed": 3}
    with StubEndpoint(lambda body: chat_reply(f"answer {number_of(body)}", usage=(7, 3))) as stub:
        subject = open_endpoint(f"{stub.url}#small")
        answers = list(subject.answers(items(12), suite(generation=generation)))
    assert [(answer.id, answer.text) for answer in answers] == [(str(n), f"answer {n}") for n in range(12)]
    body = stub.requests[0].body
    assert {key: body[key] for key in generation} == generation
    assert body["model"] == "small"
    assert answers[0].generated_tokens == 3
    assert answers[0].finish == "stop"
    assert answers[0].seconds is not None


def test_greedy_answers_are_asked_for_without_a_seed_that_some_endpoints_refuse() -> None:
    with StubEndpoint(lambda body: "x") as stub:
        list(open_endpoint(f"{stub.url}#small").answers(items(1), suite()))
    assert set(stub.requests[0].body) == {"model", "messages", "max_tokens", "temperature"}


def test_labels_are_read_from_what_the_endpoint_writes() -> None:
    words = ["Good.", "I think bad", "good or bad", ""]
    with StubEndpoint(lambda body: words[number_of(body)]) as stub:
        answers = list(open_endpoint(f"{stub.url}#small").answers(items(4), suite(**CLASSIFY)))
    assert [answer.predicted for answer in answers] == ["good", "bad", None, None]


def test_what_needs_likelihoods_is_refused_with_the_way_out() -> None:
    subject = open_endpoint("http://127.0.0.1:1/v1#small")
    with pytest.raises(UsageError, match="scoring: generate"):
        subject.check(items(1), suite(**{**CLASSIFY, "scoring": "likelihood"}))
    with pytest.raises(UsageError, match="perplexity"):
        subject.check(items(1), suite(task="perplexity", data=[{"source": "x.jsonl", "format": "text"}]))
    subject.check(items(1), suite(**CLASSIFY))
    subject.check(items(1), suite())


def test_endpoints_are_known_by_their_address_and_need_a_model() -> None:
    assert recognizes("https://a/v1#b")
    assert not recognizes("model.gguf")
    one, same, other = (open_endpoint(f"http://h/v1#{model}") for model in "aab")
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert (one.kind, one.size_bytes) == ("endpoint", None)
    with pytest.raises(UsageError, match="name of a model"):
        open_endpoint("http://h/v1")


def test_a_missing_answer_of_the_model_under_test_ends_the_run_with_its_place() -> None:
    with StubEndpoint(lambda body: error_reply(500, "oops") if number_of(body) == 3 else "x") as stub:
        answers = open_endpoint(f"{stub.url}#small").answers(items(9), suite())
        with pytest.raises(EdgetuneError, match=r"data\.jsonl:3.*HTTP 500: oops.*run the same command again"):
            list(answers)


@pytest.mark.skip(reason="known defect: Ctrl-C inside a task can end in asyncio's RuntimeError (asking/event_loop.py)")
def test_ctrl_c_while_a_model_answers_ends_the_asking() -> None:
    def answer(body: dict[str, Any]) -> Any:
        if number_of(body) == 5:
            _thread.interrupt_main()
        return StubReply(chat_reply("x"), delay=5.0 if number_of(body) >= 5 else 0.0)

    with StubEndpoint(answer) as stub:
        answers = open_endpoint(f"{stub.url}#small").answers(items(9), suite())
        with pytest.raises(KeyboardInterrupt):
            list(answers)


# llama-cpp-python's own server


@pytest.fixture(scope="module")
def llama_server(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SmolLM2 behind llama-cpp-python's OpenAI-compatible server, in a process of its own; yields the base URL."""
    pytest.importorskip("fastapi", reason="llama-cpp-python's server needs its extra [server]")
    pytest.importorskip("uvicorn", reason="llama-cpp-python's server needs its extra [server]")
    with serve(smollm2_gguf, tmp_path_factory.mktemp("server") / "log") as url:
        yield url


@contextmanager
def serve(gguf: Path, log: Path) -> Iterator[str]:
    port = free_port()
    options = {"model": gguf, "port": port, "n_ctx": 512, "n_threads": 1, "n_threads_batch": 2, "verbose": False}
    command = [sys.executable, "-m", "edgetune.runtime.guarded", "llama_cpp.server", "--host", "127.0.0.1"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "NO_COLOR": "1"})
    try:
        url = f"http://127.0.0.1:{port}/v1"
        for _ in range(300):
            assert server.poll() is None, log.read_text(errors="replace")
            try:
                urllib.request.urlopen(f"{url}/models", timeout=5).read()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


def test_llama_cpps_own_server_judges_in_the_form_and_tells_probabilities(llama_server: str) -> None:
    words = 'Answer in JSON: {"reason": "yes", "correctness": 5}. '
    judge = judge_at(llama_server, max_tokens=32, connections=1)
    notes: list[str] = []
    (reply,) = ask_all([question(1, words)], judge, cache=None, on_note=notes.append)
    assert isinstance(reply, Reply), reply
    verdict = json.loads(reply.text)
    assert list(verdict) == ["reason", "correctness"]
    assert verdict["correctness"] in range(1, 6)
    shares = reply.probabilities["correctness"]
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.__getitem__) == str(verdict["correctness"]) or min(shares.values()) > 0
    assert reply.input_tokens > 20
    assert notes == ["stub does not support strict JSON schemas; the schema is passed in llama.cpp's form"]


def test_llama_cpps_own_server_answers_as_the_model_under_test_does_here(llama_server: str, smollm2_gguf: Path) -> None:
    from edgetune.runtime.sampling import GREEDY
    from edgetune.runtime.session import Session

    question_here = (Message("user", "What is the capital of France?"),)
    asked = [Item("a", "a", "a", question_here)]
    (answer,) = open_endpoint(f"{llama_server}#smollm2").answers(asked, suite(generation={"max_tokens": 8}))
    with Session.open(smollm2_gguf, threads=1) as session:
        prompt = session.vocabulary.tokenize(
            session.vocabulary.template.render(question_here, add_generation_prompt=True)
        )
        session.context.feed(prompt, reproducible=True)
        here = "".join(session.generate(prompt, sampling=GREEDY, max_tokens=8))
    assert answer.text is not None
    assert answer.text.strip() == here.strip()
    assert answer.generated_tokens in (7, 8)
