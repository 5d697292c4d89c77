"""How endpoints are asked: waiting, pacing, the cap on the cost, probabilities of grades, and keys that stay hidden."""

from __future__ import annotations

import asyncio
import json
import math
import time
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.stub_endpoint import chat_reply, token_logprob

from edgetune.data.example import Message
from edgetune.errors import UsageError
from edgetune.judging.asking.completion import Unreadable, explain_error, hide_key, read_completion
from edgetune.judging.asking.cost import Budget, CapReached, count_tokens, estimate, require_price
from edgetune.judging.asking.crew import work_through
from edgetune.judging.asking.limits import RequestPace
from edgetune.judging.asking.probabilities import read_probabilities
from edgetune.judging.asking.request import JudgeRequest, VerdictForm
from edgetune.judging.asking.retry import asked_wait_seconds, backoff_seconds, is_temporary
from edgetune.judging.suites.judge_file import EndpointJudge, LocalJudge, Price

GRADES = VerdictForm({"correctness": (1, 2, 3, 4, 5)})
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("Thu, 01 Jan 2026 12:01:30 GMT", 90.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("-3", 0.0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str, seconds: float | None) -> None:
    assert asked_wait_seconds({"retry-after": value}, NOW) == seconds


def test_milliseconds_go_before_seconds_and_a_limit_that_is_used_up_says_when_it_is_full_again() -> None:
    assert asked_wait_seconds({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert asked_wait_seconds({"retry-after-ms": "soon", "retry-after": "9"}) == 9
    left = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "17"}
    resets = {"x-ratelimit-reset-requests": "1m0.5s", "x-ratelimit-reset-tokens": "1h"}
    assert asked_wait_seconds({**left, **resets}) == 60.5
    assert asked_wait_seconds({**left, **resets, "retry-after": "2"}) == 2
    assert asked_wait_seconds(resets) is None


def test_backoff_doubles_and_is_spread() -> None:
    for attempt in range(1, 20):
        longest = min(0.5 * 2**attempt, 30.0)
        waits = [backoff_seconds(attempt) for _ in range(200)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
        assert max(waits) - min(waits) > longest / 4


def test_only_what_may_pass_is_tried_again() -> None:
    assert all(is_temporary(status) for status in (408, 429, 500, 502, 503, 504, 529))
    assert not any(is_temporary(status) for status in (400, 401, 403, 404, 422, 501))


def test_requests_begin_evenly_and_wait_while_all_are_paused() -> None:
    async def begin() -> tuple[list[float], float]:
        pace = RequestPace(requests_per_minute=60 / 0.03)
        started = time.monotonic()

        async def one() -> float:
            await pace.wait()
            return time.monotonic() - started

        times = sorted(await asyncio.gather(*(one() for _ in range(5))))
        pace.pause(0.2)
        paused = time.monotonic()
        await pace.wait()
        return times, time.monotonic() - paused

    times, pause = asyncio.run(begin())
    assert all(begun >= 0.03 * number - 0.005 for number, begun in enumerate(times))
    assert times[-1] < 1
    assert pause >= 0.19


def test_a_budget_waits_for_calls_under_way_and_never_passes_its_cap() -> None:
    async def spend(budget: Budget) -> int:
        done = 0

        async def call() -> None:
            nonlocal done
            await budget.reserve(1.0)
            await asyncio.sleep(0.001)
            budget.settle(1.0, 0.3)
            done += 1

        await asyncio.gather(*(call() for _ in range(30)), return_exceptions=True)
        return done

    budget = Budget(3.0)
    done = asyncio.run(spend(budget))
    # Each call takes 0.3 and reserves 1.0: the last that may begin has 2.0 or less spent before it.
    assert done == 7
    assert budget.spent_usd == pytest.approx(2.1)


def test_a_budget_serves_several_event_loops_and_reports_the_cap() -> None:
    budget = Budget(1.0)

    async def two() -> None:
        async def call() -> None:
            await budget.reserve(0.6)
            await asyncio.sleep(0)
            budget.settle(0.6, 0.1)

        await asyncio.gather(call(), call())

    for _ in range(2):
        asyncio.run(two())
    with pytest.raises(CapReached):
        asyncio.run(two())
    assert budget.spent_usd == pytest.approx(0.5)


@pytest.mark.parametrize("amount", [-1.0, math.nan, math.inf])
def test_a_cap_that_is_no_amount_is_refused(amount: float) -> None:
    with pytest.raises(UsageError, match="max-cost"):
        Budget(amount)


def test_a_cap_needs_a_price_but_a_judge_on_this_machine_costs_nothing() -> None:
    require_price(LocalJudge(name="here", model="x.gguf"))
    require_price(EndpointJudge(name="a", model="a", price=Price(input=1, output=1)))
    with pytest.raises(UsageError, match=r"dear-judge.*price"):
        require_price(EndpointJudge(name="dear-judge", model="a"))


def test_an_estimate_counts_each_question_once_and_prices_it() -> None:
    requests = [
        JudgeRequest({"n": number % 3}, lambda: (Message("user", "abcd" * 100),), GRADES) for number in range(5)
    ]
    priced = EndpointJudge(name="a", model="a", max_tokens=100, price=Price(input=2, output=10))
    found = estimate(requests, priced)
    assert (found.calls, found.cached, found.repeated) == (3, 0, 2)
    assert (found.input_tokens, found.output_tokens) == (3 * 104, 300)
    assert found.high_usd == pytest.approx((312 * 2 + 300 * 10) / 1e6)
    assert found.low_usd == pytest.approx((312 * 2 + 60 * 10) / 1e6)
    unpriced = estimate(requests, EndpointJudge(name="b", model="b"))
    assert unpriced.high_usd is None
    assert "price unknown" in str(unpriced)


def test_other_scripts_are_counted_as_dearer_than_ascii() -> None:
    assert count_tokens("abcdefgh") == 2
    assert count_tokens("日本語") == 3


# Probabilities


def written(*tokens: str | tuple[str, dict[str, float]]) -> list[dict]:
    """A completion's logprobs; probabilities are given for the tokens that matter."""
    entries = [(token, {token: 1.0}) if isinstance(token, str) else token for token in tokens]
    return [token_logprob(token, {key: math.log(p) for key, p in shares.items()}) for token, shares in entries]


@pytest.mark.parametrize(
    ("before", "value"),
    [
        (('{"', "reason", '":"', "ok", '","', "correctness", '":'), lambda grade: grade),
        (('{"reason": "ok", "correctness"', ":"), lambda grade: f" {grade}"),
        (('{"reason": "ok", "correct', 'ness"'), lambda grade: f": {grade}"),
        (('{"reason": "ok", "correctness": ',), lambda grade: f"{grade}}}"),
        (('{"reason": "ok", "correctness": "',), lambda grade: f'{grade}"}}'),
        (("Reason: ok\n", "**correctness", "**:"), lambda grade: f" {grade}\n"),
    ],
)
def test_grades_are_found_however_they_are_cut_into_tokens(before: tuple[str, ...], value) -> None:
    shares = {value("4"): 0.6, value("3"): 0.3, value("5"): 0.1}
    ends = value("4").endswith(("}", "\n"))
    found = read_probabilities(written(*before, (value("4"), shares), *([] if ends else ["}"])), GRADES)
    assert found["correctness"] == pytest.approx({"1": 0, "2": 0, "3": 0.3, "4": 0.6, "5": 0.1})


def test_the_last_naming_of_a_field_counts_not_one_inside_the_reason() -> None:
    tokens = written(
        '{"reason": "I give correctness: ', ("1", {"1": 1.0}), '", "correctness": ', ("4", {"4": 0.9, "5": 0.1}), "}"
    )
    assert read_probabilities(tokens, GRADES)["correctness"] == pytest.approx(
        {"1": 0, "2": 0, "3": 0, "4": 0.9, "5": 0.1}
    )


def test_the_beginning_of_a_word_stands_for_its_choice() -> None:
    form = VerdictForm({"winner": ("first", "second", "tie")})
    tokens = written('{"reason": "x", "winner": "', ("fir", {"fir": 0.5, "second": 0.25, "t": 0.25}), "st", '"}')
    assert read_probabilities(tokens, form)["winner"] == pytest.approx({"first": 0.5, "second": 0.25, "tie": 0.25})


SCORE_5 = written('{"correctness": ', ("5", {"5": 0.9, "4": 0.1}))
MENTION = written("correctness: ", ("1", {"1": 0.8, "2": 0.2}))


def says(*tokens: str) -> list[dict]:
    return written(*tokens)


@pytest.mark.parametrize(
    "tokens",
    [
        [*SCORE_5, *says(', "reason": "A '), *MENTION, *says(' would need an error."}')],
        [*SCORE_5, *says(', "reason": "No \\"'), *MENTION, *says('\\""}')],
        [*says('{"reason": "Not '), *MENTION, *says('", "verdict": '), *SCORE_5, *says("}}")],
        [*SCORE_5, *says("}"), *says("\nA "), *MENTION, *says(" would need an error.")],
        [*says("<think>", '{"'), *MENTION[1:], *says("} or "), *MENTION, *says("</think>"), *SCORE_5, *says("}")],
        [*says("perhaps "), *MENTION, *says("\n", "</think>", "\n"), *SCORE_5, *says("}")],
        [*says('{"correctness": 1}', "\nNo:\n"), *SCORE_5, *says("}")],
        [*written("correctness: ", ("5", {"5": 0.9, "4": 0.1}), "\nreason: a "), *MENTION, *says(" needs an error")],
        [*written("**correctness:** ", ("5", {"5": 0.9, "4": 0.1}), "\n\nA "), *MENTION, *says(" needs an error")],
        [*written('{"correctness": "', ("5", {"5": 0.9, "4": 0.1}), ".", "0", '", "reason": "'), *MENTION, *says('"}')],
        [*written('{"correctness', ('": 5,', {'": 5,': 0.9, '": 4,': 0.1}), ' "reason": "'), *MENTION, *says('"}')],
    ],
)
def test_probabilities_are_those_of_the_value_that_the_verdict_is_read_from(tokens: list[dict]) -> None:
    assert read_probabilities(tokens, GRADES)["correctness"] == pytest.approx(
        {"1": 0, "2": 0, "3": 0, "4": 0.1, "5": 0.9}
    )


def split_bytes(text: str, kind: str) -> list[dict]:
    """A text of which every byte is a token, as servers write tokens that are no whole character."""
    spelled = {
        "bytes": lambda byte: chr(byte) if byte < 128 else "\N{REPLACEMENT CHARACTER}",
        "openai": lambda byte: chr(byte) if byte < 128 else f"bytes:\\x{byte:02x}",
        "sentencepiece": lambda byte: chr(byte) if byte < 128 else f"<0x{byte:02X}>",
        "lossy": lambda byte: chr(byte) if byte < 128 else "\N{REPLACEMENT CHARACTER}",
        "empty": lambda byte: chr(byte) if byte < 128 else "",
    }[kind]
    tokens = [{"token": spelled(byte), "bytes": [byte], "logprob": 0.0, "top_logprobs": []} for byte in text.encode()]
    if kind not in ("bytes", "openai"):
        for token in tokens:
            del token["bytes"]
    return tokens


@pytest.mark.parametrize("kind", ["bytes", "openai", "sentencepiece", "lossy", "empty"])
def test_characters_that_are_split_into_bytes_shift_nothing(kind: str) -> None:
    before, after = '{"reason": "Gut – 好的 🙂, é", "correctness": ', ', "more": "日本 correctness: 1"}'
    tokens = [*split_bytes(before, kind), *SCORE_5[1:], *split_bytes(after, kind)]
    found = read_probabilities(tokens, GRADES, f"{before}5{after}")
    assert found["correctness"] == pytest.approx({"1": 0, "2": 0, "3": 0, "4": 0.1, "5": 0.9})


def test_tokens_of_reasoning_and_ends_that_are_not_in_the_text_shift_nothing() -> None:
    reasoning = says("<|channel|>", "analysis", "<|message|>", '{"correctness": 1} '), MENTION, says("<|end|>")
    tokens = [*(token for part in reasoning for token in part), *SCORE_5, *says("}", "<|return|>")]
    found = read_probabilities(tokens, GRADES, '{"correctness": 5}')
    assert found["correctness"] == pytest.approx({"1": 0, "2": 0, "3": 0, "4": 0.1, "5": 0.9})
    assert read_probabilities(tokens, GRADES, '{"correctness": 4}') == {}
    cut = read_probabilities(SCORE_5, GRADES, '{"correctness": 5, "reason": "fine"}')
    assert cut["correctness"]["5"] == pytest.approx(0.9)


@pytest.mark.parametrize("space", ["▁", "Ġ"])
def test_servers_that_write_spaces_in_their_own_way_are_understood(space: str) -> None:
    value = (f"{space}5", {f"{space}5": 0.9, f"{space}4": 0.1})
    tokens = [*written('{"correctness":', value, f',{space}"reason":{space}"'), *MENTION, *says('"}')]
    found = read_probabilities(tokens, GRADES, '{"correctness": 5, "reason": "correctness: 1"}')
    assert found["correctness"] == pytest.approx({"1": 0, "2": 0, "3": 0, "4": 0.1, "5": 0.9})


def test_numbers_of_several_tokens_are_told_apart_by_the_next_one() -> None:
    ten = VerdictForm({"score": tuple(range(1, 11))})
    tokens = written('{"score": ', ("1", {"1": 0.8, "9": 0.2}), ("0", {"0": 0.75, "}": 0.25}), "}")
    found = read_probabilities(tokens, ten)["score"]
    assert found == pytest.approx({**{str(n): 0 for n in range(2, 9)}, "1": 0.2, "9": 0.2, "10": 0.6})
    alone = written('{"score": ', ("1", {"1": 0.8, "9": 0.2}), ("}", {"0": 0.25, "}": 0.75}))
    assert read_probabilities(alone, ten)["score"]["1"] == pytest.approx(0.6)
    open_ended = written('{"score": ', ("9", {"1": 0.4, "9": 0.6}), "}")
    assert read_probabilities(open_ended, ten) == {}  # 1 or 10: nobody knows


def test_what_could_be_several_choices_or_none_makes_no_probabilities() -> None:
    mostly_other = written('"correctness": ', ("4", {"4": 0.5, "N": 0.4, "5": 0.1}))
    assert read_probabilities(mostly_other, GRADES) == {}
    assert read_probabilities(written('{"reason": "nothing else"}'), GRADES) == {}
    assert read_probabilities([], GRADES) == {}


def test_spellings_of_one_grade_are_added_up() -> None:
    tokens = written('"correctness":', (" 4", {" 4": 0.4, "4": 0.2, "\n4": 0.1, " 2": 0.3}))
    assert read_probabilities(tokens, GRADES)["correctness"]["4"] == pytest.approx(0.7)


@given(
    weights=st.lists(st.floats(0.001, 1.0), min_size=5, max_size=5),
    stray=st.floats(0, 0.3),
    cuts=st.lists(st.integers(1, 30), max_size=6),
    space=st.sampled_from(["", " ", "\n "]),
    reason=st.text(max_size=20),
)
def test_probabilities_are_those_of_the_grades_whatever_the_tokenizer(
    weights: list[float], stray: float, cuts: list[int], space: str, reason: str
) -> None:
    total = sum(weights) / (1 - stray)
    shares = {space + str(grade): weight / total for grade, weight in enumerate(weights, start=1)}
    listed = {**shares, "x": stray} if stray else shares
    prefix = json.dumps({"reason": reason})[:-1] + ', "correctness":'
    places = sorted({min(cut, len(prefix)) for cut in cuts} | {0, len(prefix)})
    pieces = [prefix[start:end] for start, end in pairwise(places)]
    found = read_probabilities(written(*pieces, (space + "3", listed), "}"), GRADES)
    if stray > 0.2 + 1e-9:
        assert found == {}
    elif stray < 0.2 - 1e-9:
        expected = {str(grade): weight / sum(weights) for grade, weight in enumerate(weights, start=1)}
        assert found["correctness"] == pytest.approx(expected, rel=1e-6)
        assert sum(found["correctness"].values()) == pytest.approx(1)


TOKENS = st.sampled_from(["1", " 5", "correctness:", "correctness", ": ", ""])
ALTERNATIVES = st.lists(st.fixed_dictionaries({"token": TOKENS, "logprob": st.floats()}), max_size=3)
ENTRIES = st.fixed_dictionaries(
    {}, optional={"token": TOKENS, "logprob": st.none() | st.floats(), "top_logprobs": st.none() | ALTERNATIVES}
)


@given(st.lists(ENTRIES, max_size=8))
def test_no_list_of_tokens_breaks_the_reader(tokens: list[dict]) -> None:
    for shares in read_probabilities([{"token": "correctness: "}, *tokens], GRADES).values():
        assert sum(shares.values()) == pytest.approx(1)


# Bodies and keys


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html>Bad gateway</html>", "not JSON"),
        (b'{"choices": [{"mess', "not JSON"),
        (b"", "nothing"),
        (b"[]", "no choices"),
        (b'{"choices": []}', "no choices"),
        (b'{"error": {"message": "overloaded"}}', "overloaded"),
        (b'{"choices": [3]}', "no message"),
    ],
)
def test_what_is_no_completion_is_told_as_what_it_is(body: bytes, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        read_completion(body, 0, None)


def test_a_completion_without_usage_or_with_parts_is_still_one() -> None:
    body = chat_reply("abcdefgh", usage=None)
    body["choices"][0]["message"]["content"] = [{"type": "text", "text": "abcd"}, {"type": "text", "text": "efgh"}]
    read = read_completion(json.dumps(body).encode(), 11, None)
    assert (read.text, read.input_tokens, read.output_tokens) == ("abcdefgh", 11, 2)


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "Paris", "reasoning_content": "hm"}, "Paris", "hm"),
        ({"content": "Paris", "reasoning": "hm", "reasoning_content": None}, "Paris", "hm"),
        ({"content": None, "thinking": "hm"}, "", "hm"),
        ({"content": "Paris", "reasoning": {"content": "hm"}}, "Paris", "hm"),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "Paris"},
                ]
            },
            "Paris",
            "hm",
        ),
        ({"content": [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "Paris"}]}, "Paris", "hm"),
        ({"content": "Paris", "reasoning": 7}, "Paris", ""),
        ({"content": "<think>hm</think>Paris"}, "<think>hm</think>Paris", ""),
    ],
)
def test_reasoning_that_an_endpoint_gives_apart_is_no_part_of_the_text(
    message: dict, text: str, reasoning: str
) -> None:
    completion = read_completion(json.dumps({"choices": [{"message": message}]}).encode(), 5, None)
    assert (completion.text, completion.reasoning) == (text, reasoning)


def test_errors_of_all_kinds_of_servers_are_explained() -> None:
    openai = b'{"error": {"message": "Unknown parameter", "param": "top_logprobs", "code": "unknown_parameter"}}'
    assert explain_error(openai, None) == ("Unknown parameter", "top_logprobs", "unknown_parameter")
    assert explain_error(b'{"detail": "Not Found"}', None)[0] == "Not Found"
    assert "loc" in explain_error(b'{"detail": [{"loc": ["body", "response_format"]}]}', None)[0]
    assert explain_error(b"<html><b>502</b> Bad Gateway</html>", None)[0] == "502 Bad Gateway"
    assert explain_error(b'{"error": "busy"}', None)[0] == "busy"


def test_keys_are_hidden_wherever_they_are_echoed() -> None:
    hidden = hide_key("key sk-abc123456 or Bearer tok.en-1 or my-secret, partly sk-ab***56", "my-secret")
    for secret in ("abc123456", "tok.en-1", "my-secret", "ab***56"):
        assert secret not in hidden


@given(st.integers(0, 600))
def test_no_part_of_a_key_stays_where_a_long_message_is_cut(place: int) -> None:
    body = json.dumps({"error": {"message": "x" * place + "0123456789abcdef" + "y" * 600}}).encode()
    assert "0123" not in explain_error(body, "0123456789abcdef")[0]


# Many at once


def test_results_come_in_order_and_no_more_are_under_way_than_allowed() -> None:
    under_way = most = 0

    async def work(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001 * (number % 5))
        under_way -= 1
        return number * number

    async def gather() -> list[int]:
        async with aclosing(work_through(range(40), work, 4)) as results:
            return [result async for result in results]

    assert asyncio.run(gather()) == [number * number for number in range(40)]
    assert most == 4


def test_the_first_failure_ends_all_even_while_an_earlier_job_waits() -> None:
    begun = []

    async def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise ValueError("broken")
        await asyncio.sleep(60)
        return number

    async def gather() -> None:
        async with aclosing(work_through(range(100), work, 3)) as results:
            async for _ in results:
                pass

    started = time.monotonic()
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(gather())
    assert time.monotonic() - started < 10
    assert begun[:2] == [0, 1]
    assert len(begun) <= 3
