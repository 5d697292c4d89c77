"""Reading verdicts: what a judge wrote is its verdict or none, and never a guess."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.judging.asking.request import VerdictForm
from edgetune.judging.asking.verdict import parse_verdict

GRADES = VerdictForm({"correctness": (1, 2, 3, 4, 5), "style": (1, 2, 3, 4, 5)})
GRADE = VerdictForm({"correctness": (1, 2, 3, 4, 5)})
WINNER = VerdictForm({"winner": ("first", "second", "tie")})


def values(text: str, form: VerdictForm = GRADES) -> dict[str, Any] | None:
    return parse_verdict(text, form).values


def test_a_verdict_in_the_form_is_read_with_its_reason() -> None:
    verdict = parse_verdict('{"reason": "One slip.", "correctness": 4, "style": 2}', GRADES)
    assert verdict.values == {"correctness": 4, "style": 2}
    assert verdict.reason == "One slip."
    assert verdict.problem is None


@pytest.mark.parametrize(
    "text",
    [
        'Let me think.\n```json\n{"reason": "r", "correctness": 4, "style": 2}\n```\nI hope this helps {really}.',
        '{"verdict": {"reason": "r", "correctness": 4, "style": 2}}',
        '[{"reason": "r", "correctness": 4, "style": 2}]',
        '{"reason": "{\\"correctness\\": 1, \\"style\\": 1}", "correctness": 4, "style": 2}',
        '{"reason": "r", "correctness": 4.0, "style": "2"}',
        '{"reason": "r", "Correctness": "4/5", "STYLE": "2 out of 5", "confidence": 0.3}',
        '{"reason": "line\nbreak", "correctness": 4, "style": 2}',
        '<think>{"correctness": 1, "style": 1}</think>{"reason": "r", "correctness": 4, "style": 2}',
        'Draft: {"correctness": 1, "style": 1}\n</think>\n{"reason": "r", "correctness": 4, "style": 2}',
        '[THINK]{"correctness": 1, "style": 1}[/THINK]{"reason": "r", "correctness": 4, "style": 2}',
        '<thinking>{"correctness": 1, "style": 1}</thinking>\ncorrectness: 4\nstyle: 2',
        '<|channel|>analysis<|message|>{"correctness": 1, "style": 1}<|end|><|start|>assistant<|channel|>final'
        '<|message|>{"reason": "r", "correctness": 4, "style": 2}<|return|>',
        'Well.\n<think>{"correctness": 1, "style": 1}</think>\n{"reason": "r", "correctness": 4, "style": 2}',
        '{"reason": "It left </think> in its text.", "correctness": 4, "style": 2}',
        'The tag </think> is missing: {"reason": "r", "correctness": 4, "style": 2}',
        '{"reason": "r", "correctness": "4.0", "style": "2.00"}',
        '{"reason": "r", "correctness": " 4 ", "style": "2 / 5"}',
        '{"reason": "r", "correctness": "4,0", "style": "2.0/5.0"}',
        '{"reason": "r", "correctness": "４", "style": "2."}',
        "correctness: 4.0\nstyle: 2 out of 5\nreason: A correctness: 1 would need an error.",
        '<think>hm</think>\n{"reason": "It says </think><think>.", "correctness": 4, "style": 2}',
        '{"reason": "It says <think> and </think>.", "correctness": 4, "style": 2}',
        "Reason: well done\n**Correctness**: 4/5\n- style = 2.",
        "correctness: 1\nstyle: 1\nNo, on reflection:\ncorrectness: 4\nstyle: 2",
    ],
)
def test_verdicts_are_found_where_judges_put_them(text: str) -> None:
    assert values(text) == {"correctness": 4, "style": 2}


def test_the_last_verdict_counts() -> None:
    first, last = ({"reason": "", "correctness": grade, "style": grade} for grade in (1, 5))
    assert values(f"{json.dumps(first)}\nOn reflection:\n{json.dumps(last)}") == {"correctness": 5, "style": 5}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "nothing"),
        (" \n", "nothing"),
        ("I cannot grade this.", "no verdict on correctness"),
        ('{"reason": "r", "correctness": 4, "sty', "not complete"),
        ('{"reason": "it says {\\"correctness\\": 5, \\"style\\": 5} so', "not complete"),
        ('{"reason": "it says\ncorrectness: 5\nstyle: 5', "not complete"),
        ('{"reason": "r", "correctness": 4}', "has no style"),
        ('{"reason": "r", "correctness": 6, "style": 2}', "correctness '6'"),
        ('{"reason": "r", "correctness": 0, "style": 2}', "correctness '0'"),
        ('{"reason": "r", "correctness": 4.5, "style": 2}', "correctness '4.5'"),
        ('{"reason": "r", "correctness": true, "style": 2}', "correctness 'True'"),
        ('{"reason": "r", "correctness": null, "style": 2}', "correctness 'None'"),
        ('{"reason": "r", "correctness": NaN, "style": 2}', "correctness 'nan'"),
        ('{"reason": "r", "correctness": [4], "style": 2}', "correctness 'an object'"),
        ('{"reason": "r", "correctness": "4/10", "style": 2}', "correctness '4/10'"),
        ('{"reason": "r", "correctness": 4, "style": 2, "correctness": 1}', "twice and differently"),
        ('{"correctness": 4, "style": 2}\nNo: {"correctness": 7, "style": 2}', "correctness '7'"),
        ("correctness: 4\nstyle: excellent", "style 'excellent'"),
        ("correctness: 4 or 5\nstyle: 2", "correctness '4 or 5'"),
        ('<think>I lean to {\'correctness\': 4}. {"correctness": 4, "style": 2} perhaps', "ended before"),
        ('{"correctness": 1, "style": 1}\n</think>\n', "ended before"),
        ('{"correctness": 1, "style": 1}\n</think>\nI cannot say.', "no verdict on correctness"),
        ('[THINK]{"correctness": 1, "style": 1}', "ended before"),
        ('Well.\n<think>\n{"correctness": 1, "style": 1}', "no verdict on correctness"),
        ('<|channel|>analysis<|message|>{"correctness": 1, "style": 1}<|end|>', "ended before"),
        ('{"reason": "r", "correctness": "4.5", "style": 2}', "correctness '4.5'"),
        ('{"reason": "r", "correctness": "Four", "style": 2}', "correctness 'Four'"),
        ('{"reason": "r", "correctness": "4 of 10", "style": 2}', "correctness '4 of 10'"),
        ('{"reason": "r", "correctness": "4-5", "style": 2}', "correctness '4-5'"),
        ('{"reason": "r", "correctness": "-4", "style": 2}', "correctness '-4'"),
        ("{" * 5000, "not complete|no verdict"),
        ('{"a":' * 5000, "not complete"),
        ('{"reason": "r", "correctness": ' + "9" * 6000 + ', "style": 2}', "not complete|no choice"),
    ],
)
def test_what_cannot_be_read_has_a_problem_and_no_values(text: str, problem: str) -> None:
    verdict = parse_verdict(text, GRADES)
    assert verdict.values is None
    assert verdict.problem is not None
    assert any(part in verdict.problem for part in problem.split("|"))


@pytest.mark.parametrize(
    "piece", ["\n", " ", "*", "correctness: *", "correctness:\n", "{", '{"', "[", '{"a":[', "<think>"]
)
def test_no_text_is_slow_to_read(piece: str) -> None:
    start = time.perf_counter()
    assert values(piece * (200_000 // len(piece)) + "a") is None
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "text",
    [
        '{"reason": "correctness: 1", "correctness": 4, "style": 2}',
        '{"style": 2, "correctness": 4, "reason": "correctness: 1"}',
        '{"v": [{"x": 1}, {"Correctness" : "4 / 5", "style": 2}], "w": "correctness: 1"}',
        '<think>{"correctness": 1, "style": 1}</think>```json\n{"correctness": 4, "style": 2}\n```',
        "correctness: 1\nstyle: 1\nNo:\n- **Correctness**: *4*\nstyle = 2\nA correctness: 1 is less.",
        "é" * 40_000 + '{"correctness": 4.0, "style": 2}',
    ],
)
def test_a_verdict_tells_where_its_values_stand_in_the_text(text: str) -> None:
    places = parse_verdict(text, GRADES).places
    assert {name: text[place] for name, place in places.items()} == {"correctness": "4", "style": "2"}


def test_winners_are_words_whatever_their_case() -> None:
    assert values('{"reason": "r", "winner": "First"}', WINNER) == {"winner": "first"}
    assert values("Winner: tie", WINNER) == {"winner": "tie"}
    assert values('{"reason": "r", "winner": "the first"}', WINNER) is None
    assert values('{"reason": "r", "winner": 1}', WINNER) is None


reasons = st.text(max_size=60)
prose = st.text(alphabet=st.characters(exclude_characters="{}<", exclude_categories=("Cs",)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(reason=reasons, grades=st.tuples(st.integers(1, 5), st.integers(1, 5)), before=prose, after=prose)
def test_every_verdict_in_the_form_is_read_whatever_stands_around_it(
    reason: str, grades: tuple[int, int], before: str, after: str
) -> None:
    verdict = {"reason": reason, "correctness": grades[0], "style": grades[1]}
    for text in (json.dumps(verdict), f"{before}\n```json\n{json.dumps(verdict, indent=2)}\n```\n{after}"):
        parsed = parse_verdict(text, GRADES)
        assert parsed.values == {"correctness": grades[0], "style": grades[1]}
        assert parsed.reason == reason.strip()


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet='{}[]":,=/.\n\\ 0123456789correctnesstyle', max_size=200))
def test_any_text_is_a_verdict_within_the_form_or_none(text: str) -> None:
    verdict = parse_verdict(text, GRADES)
    if verdict.values is None:
        assert verdict.problem
    else:
        assert set(verdict.values) == set(GRADES.fields)
        assert all(value in GRADES.fields[name] for name, value in verdict.values.items())


@settings(max_examples=100, deadline=None)
@given(reason=st.text(alphabet='{}":,[]correctness \\12345', max_size=60), grade=st.integers(1, 5), cut=st.integers(1))
def test_a_verdict_that_was_cut_off_is_none(reason: str, grade: int, cut: int) -> None:
    text = json.dumps({"reason": reason, "correctness": grade})
    assert values(text[: len(text) - 1 - cut % (len(text) - 2)], GRADE) is None
