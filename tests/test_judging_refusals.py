"""What endpoints refuse: a way of asking, one prompt, or all; what they ask to wait; and Azure's addresses and keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asked import VERDICT, ask, items, judge_at, number_of, question, suite
from judged import judged_suite, put_judge, winner, write_outputs, write_rows
from stub_endpoint import StubEndpoint, StubReply, chat_reply, error_reply

from edgetune.errors import EdgetuneError, RecipeError, UsageError
from edgetune.judging.asking import retry
from edgetune.judging.asking.address import completions_url, is_azure, key_headers, spell_url
from edgetune.judging.asking.limits import Pace
from edgetune.judging.asking.refusal import find_cause, named_features
from edgetune.judging.asking.request import Failed, Reply
from edgetune.judging.asking.schedule import ask_all
from edgetune.judging.gate import Outcome
from edgetune.judging.judge_file import load_judge
from edgetune.judging.report.document import report_document
from edgetune.judging.report.markdown import report_markdown
from edgetune.judging.run import judge_model
from edgetune.judging.settings import Settings
from edgetune.judging.subjects.endpoint import open_endpoint
from edgetune.judging.suite import Suite, load_suite

KEY = "hk-4815162342-very-secret"
FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation"},
    }
}
"""What Azure OpenAI answers to a prompt that its filter stops, with status 400."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff in milliseconds, and no key in the environment but a test's own."""
    monkeypatch.setattr(retry, "FIRST_BACKOFF_SECONDS", 0.002)
    for variable in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


# A way of asking


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 422, 500, 501])
def test_whatever_the_status_a_parameter_that_is_refused_by_name_is_left_out(status: int) -> None:
    refused = {
        "logprobs": "You are not allowed to request logprobs from this model",
        "response_format": "response_format is not available for your plan",
        "temperature": "Unsupported value: temperature does not support 0 with this model",
        "max_tokens": "Use max_completion_tokens instead of max_tokens",
    }

    def answer(body: dict[str, Any]) -> Any:
        return next((error_reply(status, words) for name, words in refused.items() if name in body), VERDICT)

    with StubEndpoint(answer) as stub:
        replies, _ = ask(stub, 3)
    assert all(isinstance(reply, Reply) for reply in replies)
    assert set(stub.requests[-1].body) == {"model", "messages", "max_completion_tokens"}


def test_a_sampling_seed_that_is_forbidden_is_left_out_of_the_questions_to_a_model() -> None:
    with StubEndpoint(lambda body: error_reply(403, "parameter seed is forbidden") if "seed" in body else "x") as stub:
        (answer,) = open_endpoint(f"{stub.url}#m").answers(items(1), suite(generation={"temperature": 0.7}))
    assert (answer.text, answer.unanswered) == ("x", None)
    assert stub.requests[-1].body["temperature"] == 0.7


def test_parameters_that_no_provider_takes_are_found_out_though_none_is_named() -> None:
    """What OpenRouter answers with status 404, which elsewhere is a wrong name of a model."""
    words = "No endpoints found that can handle the requested parameters."
    with StubEndpoint(lambda body: error_reply(404, words) if "logprobs" in body else VERDICT) as stub:
        (reply,), _ = ask(stub)
    assert isinstance(reply, Reply)
    assert "response_format" in stub.requests[-1].body


@pytest.mark.parametrize(
    ("status", "key", "says"),
    [
        (401, None, "refuses a call without a key"),
        (403, None, "refuses a call without a key"),
        (401, "GRADER_KEY", "refuses the key .*check the key in GRADER_KEY"),
        (403, "GRADER_KEY", "does not permit this with the key .*GRADER_KEY"),
        (404, None, "there is no model stub"),
    ],
)
def test_a_refusal_that_outlasts_every_way_of_asking_is_one_of_the_key_or_the_model_and_quoted(
    monkeypatch: pytest.MonkeyPatch, status: int, key: str | None, says: str
) -> None:
    monkeypatch.setenv("GRADER_KEY", KEY)
    with StubEndpoint(lambda body: error_reply(status, "You are not allowed to request logprobs")) as stub:
        with pytest.raises(EdgetuneError, match=rf"{says}") as caught:
            ask(stub, 50, key=key)
        assert len(stub.requests) == 3, "20 alternatives, 5, none"
    assert f"HTTP {status}: You are not allowed to request logprobs" in str(caught.value)


def test_a_server_behind_a_gateway_that_takes_less_than_the_others_is_asked_for_less_alone() -> None:
    def answer(body: dict[str, Any]) -> Any:
        strict = number_of(body) in (3, 4) and "logprobs" in body
        return error_reply(400, "logprobs is not supported here") if strict else VERDICT

    with StubEndpoint(answer) as stub:
        replies, _ = ask(stub, 8, connections=1)
    assert all(isinstance(reply, Reply) for reply in replies)
    assert ["logprobs" in request.body for request in stub.requests[-3:]] == [True] * 3


def test_a_parameter_that_is_forbidden_after_it_was_taken_is_left_out_and_a_key_that_is_revoked_ends_the_run() -> None:
    def answer(body: dict[str, Any]) -> Any:
        forbidden = number_of(body) == 2 and "logprobs" in body
        gone = number_of(body) == 5
        return error_reply(403, "logprobs forbidden" if forbidden else "gone") if forbidden or gone else VERDICT

    with StubEndpoint(answer) as stub, pytest.raises(EdgetuneError, match=r"HTTP 403: gone"):
        ask(stub, 8, connections=1)
    assert [number_of(request.body) for request in stub.requests] == [0, 1, 2, 2, 2, 3, 4, 5]


def test_a_key_that_is_not_valid_is_told_as_that_whatever_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's status for it is 400."""
    monkeypatch.setenv("GRADER_KEY", KEY)
    with StubEndpoint(lambda body: error_reply(400, "API key not valid. Please pass a valid API key.")) as stub:
        with pytest.raises(EdgetuneError, match="check the key in GRADER_KEY"):
            ask(stub, 9, key="GRADER_KEY")
        assert len(stub.requests) == 1


def test_a_failing_server_that_names_a_parameter_once_it_was_taken_is_asked_the_same_again() -> None:
    failed: list[int] = []

    def answer(body: dict[str, Any]) -> Any:
        if number_of(body) == 2 and not failed:
            failed.append(2)
            return error_reply(500, "logprobs worker died")
        return VERDICT

    with StubEndpoint(answer) as stub:
        replies, _ = ask(stub, 4, connections=1)
    assert all(isinstance(reply, Reply) for reply in replies)
    assert all("logprobs" in request.body for request in stub.requests)


def test_a_limit_that_no_dialect_helps_is_told_with_its_remedy() -> None:
    words = "max_tokens is too large: 512. This model supports at most 64 completion tokens"
    with (
        StubEndpoint(lambda body: error_reply(400, words)) as stub,
        pytest.raises(EdgetuneError, match=r"at most 64 completion tokens.*set another max_tokens"),
    ):
        ask(stub, 50)


def test_the_echo_of_a_request_in_an_error_names_no_parameter() -> None:
    """FastAPI's errors hold the whole input, which holds the name of every parameter."""

    def answer(body: dict[str, Any]) -> Any:
        problem = {"type": "extra", "loc": ["body", "logprobs"], "msg": "Extra inputs are not permitted", "input": body}
        return StubReply({"detail": [problem]}, 422) if "logprobs" in body else VERDICT

    with StubEndpoint(answer) as stub:
        (reply,), _ = ask(stub)
    assert isinstance(reply, Reply)
    last = stub.requests[-1].body
    assert (last["temperature"], last["response_format"]["type"]) == (0.0, "json_schema")


@pytest.mark.parametrize(
    ("status", "said", "named"),
    [
        (400, "top_logprobs must be at most 5", ("alternatives",)),
        (400, "Unrecognized argument: maxTokens", ("limit",)),
        (400, "'seed' is not supported", ("sampling",)),
        (400, "You have exceeded your plan; proceed to billing", ()),
        (503, "The GPU's temperature is too high", ()),
        (502, "upstream: log_probs unsupported", ("alternatives",)),
    ],
)
def test_features_are_known_by_the_words_of_errors(status: int, said: str, named: tuple[str, ...]) -> None:
    assert named_features(said, status) == named


@pytest.mark.parametrize(
    ("status", "said", "cause"),
    [
        (400, "content_filter ResponsibleAIPolicyViolation", "filter"),
        (403, "openai/gpt-4 requires moderation. Your input was flagged for violence", "filter"),
        (400, "data_inspection_failed: Output data may contain inappropriate content", "filter"),
        (503, "content filter unavailable", None),
        (400, "This model's maximum context length is 4096 tokens", "length"),
        (413, "", "length"),
        (429, "Request too large for gpt-4 on tokens per min (TPM): Limit 10000", "length"),
        (429, "Too many tokens, please wait before trying again", None),
        (500, "context size exceeded", "length"),
        (400, "Unsupported value: temperature", None),
    ],
)
def test_what_only_one_prompt_is_refused_for_is_known_by_the_words_of_errors(
    status: int, said: str, cause: str | None
) -> None:
    assert find_cause(said, status) == cause


# What is waited for


class FakeClock:
    """Time that passes only where requests are held back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.waits = 0.0, list[float]()
        monkeypatch.setattr(Pace, "pause", lambda _, seconds: self._pass(seconds))

    def _pass(self, seconds: float) -> None:
        self.seconds += seconds
        self.waits.append(seconds)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"retry-after": "0"},
        {"retry-after": "-5"},
        {"retry-after": "nan"},
        {"retry-after": "Thu, 01 Jan 2015 00:00:00 GMT"},
        {"retry-after-ms": "0"},
    ],
    ids=["none", "zero", "negative", "nan", "a date that has passed", "no milliseconds"],
)
def test_a_server_that_asks_for_no_wait_gets_the_own_backoff(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(retry, "FIRST_BACKOFF_SECONDS", 0.5)
    clock = FakeClock(monkeypatch)

    def answer(body: dict[str, Any]) -> Any:
        return error_reply(429, "busy", headers=headers) if clock.seconds < 10 else VERDICT

    with StubEndpoint(answer) as stub:
        (reply,), _ = ask(stub, connections=1)
    assert isinstance(reply, Reply)
    assert len(stub.requests) <= 6
    for attempt, seconds in enumerate(clock.waits, start=1):
        assert 0.25 * 2**attempt <= seconds <= 0.5 * 2**attempt


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after-ms": "2500", "retry-after": "3"}, 2.5, 2.5),
        ({"retry-after": "86400"}, 120, 120),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m3.5s"}, 63.5, 63.5),
        ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "1m"}, 0, 1),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, 0, 1),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_what_a_server_asks_for_is_waited_for_as_long_as_is_sensible(
    monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], least: float, most: float
) -> None:
    clock = FakeClock(monkeypatch)
    with StubEndpoint(lambda body: VERDICT if clock.waits else error_reply(status, "busy", headers=headers)) as stub:
        (reply,), _ = ask(stub)
    assert isinstance(reply, Reply)
    (waited,) = clock.waits
    assert least <= waited <= most


def test_a_limit_that_a_gateway_tells_with_status_403_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(monkeypatch)
    limits = [
        error_reply(403, "Out of call volume quota", headers={"retry-after": "9"}),
        error_reply(403, "You have exceeded a secondary rate limit"),
    ]
    with StubEndpoint(lambda body: limits.pop(0) if limits else VERDICT) as stub:
        (reply,), _ = ask(stub)
    assert isinstance(reply, Reply)
    assert clock.waits[0] == 9
    assert len(clock.waits) == 2


def test_an_answer_that_broke_off_is_asked_for_again() -> None:
    """What OpenRouter sends with status 200 when a provider fails in the middle."""
    broken = chat_reply("The first wor", finish="error")
    broken["choices"][0]["error"] = {"code": 502, "message": "provider disconnected"}
    replies = [broken]
    with StubEndpoint(lambda body: replies.pop() if replies else "whole") as stub:
        (answer,) = open_endpoint(f"{stub.url}#m").answers(items(1), suite())
    assert answer.text == "whole"


# One prompt that is refused for good


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
        (chat_reply("", finish="content_filter"), "content filter held the answer back"),
        (chat_reply("The first wor", finish="content_filter"), "content filter held the answer back"),
        (chat_reply("", finish="SAFETY"), "content filter held the answer back"),
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
        with pytest.raises(EdgetuneError, match=r"first 16 prompts, and a plain one too .*content filter lets"):
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


# What becomes of unanswered items


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
    measures = judgement.candidate.measures
    assert measures["exact_match"].value == measures["token_f1"].value == 30 / 40
    assert measures["length_words"].value == 2
    assert measures["length_words"].values[0] is None
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
    assert judgement.candidate.measures["exact_match"].values == (1.0, 0.0, 0.0, 1.0)


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
    assert graded.candidate.measures["right"].values[:3] == (1.0, 1.0, 4.0)
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
        with pytest.raises(EdgetuneError, match="the answers that are there are kept"):
            judge_model(suite_, f"{stub.url}#m")
        broken, before = False, len(stub.requests)
        refused.clear()
        judgement = judge_model(suite_, f"{stub.url}#m")
        asked = sorted(number_of(request.body) for request in stub.requests[before:])
    assert asked == [1, 2, 7]
    assert all(answer.unanswered is None for answer in judgement.candidate.answers)


# Addresses and keys


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("http://h/v1", "http://h/v1/chat/completions"),
        ("http://h/v1/", "http://h/v1/chat/completions"),
        ("http://h/v1//", "http://h/v1/chat/completions"),
        ("http://h", "http://h/chat/completions"),
        ("http://h/some/prefix/v1/", "http://h/some/prefix/v1/chat/completions"),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
        ("http://h/v1/chat/completions/?a=1", "http://h/v1/chat/completions?a=1"),
        ("http://h/v1?a=1&b=x%20y&a=2", "http://h/v1/chat/completions?a=1&b=x%20y&a=2"),
        (
            "https://n.openai.azure.com/openai/deployments/d?api-version=2024-06-01",
            "https://n.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-06-01",
        ),
        (
            "https://n.openai.azure.com/openai/v1/?api-version=preview",
            "https://n.openai.azure.com/openai/v1/chat/completions?api-version=preview",
        ),
    ],
)
def test_an_address_is_joined_rightly_however_it_is_written(written: str, asked: str) -> None:
    assert completions_url(spell_url(written)) == asked
    assert spell_url(spell_url(written)) == spell_url(written)


@pytest.mark.parametrize(
    ("url", "azure"),
    [
        ("https://name.openai.azure.com/openai/v1", True),
        ("https://name.openai.azure.com/openai/deployments/d?api-version=2024-06-01", True),
        ("https://name.services.ai.azure.com/models?api-version=2024-05-01-preview", True),
        ("https://gateway.example/openai/deployments/d", True),
        ("https://api.openai.com/v1", False),
        ("https://openai.azure.com.example/v1", False),
    ],
)
def test_azures_keys_go_where_the_openai_package_sends_them(url: str, azure: bool) -> None:
    import openai

    assert is_azure(url) == azure
    sent = key_headers(url, KEY)
    token = key_headers(url, "eyJ0.eyJz.c2ln")
    if azure:
        client = openai.AzureOpenAI(api_key=KEY, base_url=url, api_version="2024-06-01")
        identity = openai.AzureOpenAI(azure_ad_token="eyJ0.eyJz.c2ln", base_url=url, api_version="2024-06-01")
    else:
        client, identity = openai.OpenAI(api_key=KEY, base_url=url), openai.OpenAI(api_key="eyJ0.eyJz.c2ln")
    for one, headers in ((client, sent), (identity, token)):
        built = one._build_request(one._prepare_options(openai._models.FinalRequestOptions(method="post", url="/x")))
        names = ("api-key", "authorization")
        expected = {name: built.headers[name] for name in names if name in built.headers}
        assert {name.lower(): value for name, value in headers.items()} == expected


@pytest.mark.parametrize("role", ["judge", "judge file", "model"])
def test_azures_address_works_for_judges_and_models_and_its_key_shows_nowhere(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "of-another-service")
    with StubEndpoint(lambda body: VERDICT) as stub:
        url = f"{stub.url.removesuffix('/v1')}/openai/deployments/gpt-4o?api-version=2024-06-01"
        if role == "model":
            (answer,) = open_endpoint(f"{url}#gpt-4o").answers(items(1), suite())
            said = repr(answer) + open_endpoint(f"{url}#gpt-4o").fingerprint
        else:
            reference = f"{url}#gpt-4o"
            if role == "judge file":
                reference = str(tmp_path / "azure.yaml")
                Path(reference).write_text(
                    f"name: azure\nmodel: gpt-4o\nurl: {url}\nkey: AZURE_OPENAI_API_KEY\n", encoding="utf-8"
                )
            judge = load_judge(reference)
            said = repr(judge) + repr(ask_all([question(1)], judge, cache=None))
    (request,) = stub.requests
    assert request.path == "/openai/deployments/gpt-4o/chat/completions?api-version=2024-06-01"
    assert request.headers["api-key"] == KEY
    assert "authorization" not in request.headers
    assert KEY not in said


def test_a_missing_deployment_or_version_is_told_in_azures_words() -> None:
    with StubEndpoint(lambda body: error_reply(404, "Resource not found")) as stub:
        url = f"{stub.url.removesuffix('/v1')}/openai/deployments/gpt-4o"
        with pytest.raises(EdgetuneError, match=r"Resource not found.*\?api-version=VERSION"):
            ask_all([question(1)], judge_at(url), cache=None)


def test_a_key_for_azure_does_not_follow_a_redirect_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADER_KEY", KEY)
    with StubEndpoint(lambda body: VERDICT) as other:
        moved = StubReply("", 307, headers={"location": f"{other.url}/chat/completions?token={KEY}"})
        with (
            StubEndpoint(lambda body: moved) as stub,
            pytest.raises(EdgetuneError, match="sends all requests on to") as caught,
        ):
            ask_all([question(1)], judge_at(f"{stub.url}?api-version=1", key="GRADER_KEY"), cache=None)
        assert other.requests == []
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        (f"http://h/v1?api-key={KEY}#m", "its query must hold no key"),
        (f"http://user:{KEY}@h/v1#m", "no user or password"),
        (f"http://h/v1?api_key={KEY}", "name of a model"),
        ("http://h/v1#m?api-version=1", "stands before the #"),
        ("http://h:port/v1#m", "no URL"),
        ("http:///v1#m", "name a host"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_without_showing_a_key(reference: str, says: str) -> None:
    with pytest.raises((RecipeError, UsageError), match=says) as caught:
        load_judge(reference)
    assert KEY not in str(caught.value)
