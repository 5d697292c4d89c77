"""Grades of single answers: what a judge is asked, and what its replies say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from edgetune.judging.asking.request import Failed, JudgeRequest, Reply
from edgetune.judging.asking.verdict import parse_verdict
from edgetune.judging.grading.degenerate import find_degenerate, text_of
from edgetune.judging.grading.grades import Ask, Grade
from edgetune.judging.grading.prompt import PROMPT_VERSION, grade_form, grade_messages, references_of
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.rubric import SCALE, Rubric


@dataclass(frozen=True)
class GradingTask:
    """Answers that judges grade one by one; `answers` are in the order of the items.

    Degenerate answers are graded 1 on every criterion without asking. `control` names an A/A control: its questions are
    those of the judgement, and are asked again.
    """

    items: Sequence[Item]
    answers: Sequence[Answer]
    rubric: Rubric
    control: str | None = None

    def requests(self, repeats: int) -> list[JudgeRequest]:
        """What a judge is asked `repeats` times; item by item, repeats within an item."""
        form, shaping = grade_form(self.rubric), {"prompt": PROMPT_VERSION, "rubric": self.rubric.sha256()}
        if self.control is not None:
            shaping["control"] = self.control
        requests = []
        for item, answer in zip(self.items, self.answers, strict=True):
            if item.id in self._degenerate:
                continue
            text = text_of(answer)
            identity = {
                "grading": "pointwise",
                **shaping,
                "question": [[message.role, message.content] for message in item.messages],
                "references": list(references_of(item)),
                "answer": text,
            }
            messages = partial(grade_messages, item, text, self.rubric)
            requests += [JudgeRequest({**identity, "repeat": repeat}, messages, form) for repeat in range(repeats)]
        return requests

    def verdicts(self, judge_name: str, repeats: int, ask: Ask) -> tuple[Grade, ...]:
        """The grades of all answers by one judge; item by item, repeats within an item."""
        replies = iter(ask(self.requests(repeats)))
        return tuple(
            self._lowest(item.id, judge_name, repeat)
            if item.id in self._degenerate
            else read_grade(next(replies), item.id, self.rubric, judge_name, repeat)
            for item in self.items
            for repeat in range(repeats)
        )

    @cached_property
    def _degenerate(self) -> dict[str, str]:
        return find_degenerate(self.items, self.answers)

    def _lowest(self, item: str, judge_name: str, repeat: int) -> Grade:
        problem = self._degenerate[item]
        scores = dict.fromkeys(self.rubric.criteria, float(SCALE[0]))
        return Grade(item, judge_name, repeat, scores, reason=f"Not asked: {problem}.", degenerate=problem)


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


def _expected(shares: Mapping[str, float], given: int | str) -> float | None:
    """The mean grade under the judge's own probabilities (Liu et al. 2023, "G-Eval", arXiv:2303.16634).

    None without probabilities, and where they give the grade that was written no share: then they belong to another
    place in the text.
    """
    total = sum(shares.values())
    if total <= 0 or shares.get(str(given), 0.0) <= 0:
        return None
    return sum(grade * shares.get(str(grade), 0.0) for grade in SCALE) / total
