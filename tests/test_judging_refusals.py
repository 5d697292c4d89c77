"""What endpoints refuse: a parameter, a key, a model; they are asked for less first."""

from __future__ import annotations

from typing import Any

import pytest
from support.asked import KEY, VERDICT, ask, items, number_of, suite
from support.stub_endpoint import StubEndpoint, StubReply, error_reply

from edgetune.errors import EdgetuneError
from edgetune.judging.asking.refusal import find_cause, named_features
from edgetune.judging.asking.request import Reply
from edgetune.judging.subjects.endpoint import open_endpoint

pytestmark = pytest.mark.usefixtures("quick_backoff")


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
