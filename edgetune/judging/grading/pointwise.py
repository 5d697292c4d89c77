"""Grades of single answers: what one judge is asked, and what its replies say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from edgetune.judging.asking.request import Failed, JudgeRequest, Reply
from edgetune.judging.grading.degenerate import find_degenerate, text_of
from edgetune.judging.grading.grades import Ask, Grade
from edgetune.judging.grading.prompt import PROMPT_VERSION, grade_form, grade_messages, references_of
from edgetune.judging.grading.verdict import parse_verdict
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.rubric import SCALE, Rubric


def grade_answers(
    items: Sequence[Item],
    answers: Sequence[Answer],
    rubric: Rubric,
    judge_name: str,
    repeats: int,
    ask: Ask,
    *,
    control: str | None = None,
) -> tuple[Grade, ...]:
    """Grade every answer `repeats` times; item by item, repeats within an item.

    `answers` are in the order of the items. Degenerate answers are graded 1 on every criterion without asking.
    `control` names a control: its questions are those of the judgement, but are asked anew.
    """
    degenerate = find_degenerate(items, answers)
    planned = _plan(items, answers, repeats, degenerate)
    requests = _requests(planned, rubric, control)
    replies = {(item.id, repeat): reply for (item, _, repeat), reply in zip(planned, ask(requests), strict=True)}
    return tuple(
        _degenerate_grade(item, judge_name, repeat, rubric, degenerate[item.id])
        if item.id in degenerate
        else read_grade(replies[item.id, repeat], item.id, rubric, judge_name, repeat)
        for item in items
        for repeat in range(repeats)
    )


def pointwise_requests(
    items: Sequence[Item], answers: Sequence[Answer], rubric: Rubric, repeats: int, *, control: str | None = None
) -> list[JudgeRequest]:
    """The questions that `grade_answers` asks, without asking them."""
    planned = _plan(items, answers, repeats, find_degenerate(items, answers))
    return _requests(planned, rubric, control)


def read_grade(reply: Reply | Failed, item: str, rubric: Rubric, judge_name: str, repeat: int) -> Grade:
    """What a reply says. A failed or unreadable one is unscored; token probabilities give the expected grade."""
    if isinstance(reply, Failed):
        return Grade(item, judge_name, repeat, None, problem=reply.reason)
    verdict = parse_verdict(reply.text, grade_form(rubric))
    if verdict.values is None:
        return Grade(item, judge_name, repeat, None, reason=verdict.reason, problem=verdict.problem)
    means = {name: _expected(reply.probabilities.get(name, {}), verdict.values[name]) for name in rubric.criteria}
    scores = {name: float(verdict.values[name]) if mean is None else mean for name, mean in means.items()}
    return Grade(item, judge_name, repeat, scores, verdict.reason, expected=None not in means.values())


def _plan(
    items: Sequence[Item], answers: Sequence[Answer], repeats: int, degenerate: Mapping[str, str]
) -> list[tuple[Item, str, int]]:
    return [
        (item, text_of(answer), repeat)
        for item, answer in zip(items, answers, strict=True)
        if item.id not in degenerate
        for repeat in range(repeats)
    ]


def _requests(planned: Sequence[tuple[Item, str, int]], rubric: Rubric, control: str | None) -> list[JudgeRequest]:
    form, shaping = grade_form(rubric), {"prompt": PROMPT_VERSION, "rubric": rubric.sha256()}
    if control is not None:
        shaping["control"] = control
    requests = []
    for item, answer, repeat in planned:
        identity = {
            "grading": "pointwise",
            **shaping,
            "question": [[message.role, message.content] for message in item.messages],
            "references": list(references_of(item)),
            "answer": answer,
            "repeat": repeat,
        }
        requests.append(JudgeRequest(identity, partial(grade_messages, item, answer, rubric), form))
    return requests


def _degenerate_grade(item: Item, judge_name: str, repeat: int, rubric: Rubric, problem: str) -> Grade:
    scores = dict.fromkeys(rubric.criteria, float(SCALE[0]))
    return Grade(item.id, judge_name, repeat, scores, reason=f"Not asked: {problem}.", degenerate=problem)


def _expected(shares: Mapping[str, float], given: int | str) -> float | None:
    """The mean grade under the judge's own probabilities (Liu et al. 2023, "G-Eval", arXiv:2303.16634).

    None without probabilities, and where they leave no room for the grade that was given: then they belong to some
    other place in the text.
    """
    total = sum(shares.values())
    if total <= 0 or shares.get(str(given), 0.0) <= 0:
        return None
    return sum(grade * shares.get(str(grade), 0.0) for grade in SCALE) / total
