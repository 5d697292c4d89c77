"""Judges that are functions: they read the prompt that a real judge would read, and answer by a rule."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgetune.data.example import Message
from edgetune.judging.asking.request import Failed, JudgeRequest, Reply
from edgetune.judging.grading.neutral import restore
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.rubric import Criterion, Rubric

Rule = Callable[[dict[str, Any]], dict[str, Any] | str]
"""What is judged -> the verdict, or a text to answer with as it is. With `number`, the request's place in its call."""

ONE_CRITERION = Rubric(
    name="one",
    criteria={"quality": Criterion(question="Is it good?", grades={grade: f"anchor {grade}" for grade in range(1, 6)})},
)


@dataclass
class StubJudge:
    """Answers every request by its rule, and remembers what it was asked."""

    rule: Rule
    asked: list[JudgeRequest] = field(default_factory=list)

    def __call__(self, requests: Sequence[JudgeRequest]) -> list[Reply | Failed]:
        self.asked += requests
        return [self._reply(request, number) for number, request in enumerate(requests)]

    def _reply(self, request: JudgeRequest, number: int) -> Reply:
        judged = {**read_data(request.messages()), "number": number, "identity": request.identity}
        verdict = self.rule(judged)
        return Reply(verdict if isinstance(verdict, str) else json.dumps({"reason": "by rule", **verdict}))


def read_data(messages: Sequence[Message]) -> dict[str, Any]:
    """What stands between the delimiters of a prompt, as it was before it was neutralized."""
    found = re.fullmatch(
        r"===== BEGIN DATA (\w+) =====\n(.*)\n===== END DATA \1 =====\n.*", messages[-1].content, re.DOTALL
    )
    assert found is not None
    return {name: restore(value) if isinstance(value, str) else value for name, value in json.loads(found[2]).items()}


def always_first() -> StubJudge:
    """Names whichever answer comes first."""
    return StubJudge(lambda judged: {"winner": "first"})


def longest_wins() -> StubJudge:
    """Names the longer answer."""
    return StubJudge(lambda judged: {"winner": _by_sign(len(judged["first answer"]) - len(judged["second answer"]))})


def shortest_wins() -> StubJudge:
    """Names the shorter answer."""
    return StubJudge(lambda judged: {"winner": _by_sign(len(judged["second answer"]) - len(judged["first answer"]))})


def at_random(seed: int) -> StubJudge:
    """Names an answer, or a tie, by chance."""
    generator = random.Random(seed)
    return StubJudge(lambda judged: {"winner": generator.choice(("first", "second", "tie"))})


def by_quality(quality: Callable[[str], float]) -> StubJudge:
    """Names the answer of the higher quality, whatever its place."""
    return StubJudge(
        lambda judged: {"winner": _by_sign(quality(judged["first answer"]) - quality(judged["second answer"]))}
    )


def grading(grade: Callable[[str], int], criteria: Sequence[str] = ("quality",)) -> StubJudge:
    """Gives an answer the same grade on every criterion."""
    return StubJudge(lambda judged: dict.fromkeys(criteria, grade(judged["the answer"])))


def noisy_grading(seed: int, center: Callable[[str], float], spread: float = 0.7) -> StubJudge:
    """Grades around a center with noise that depends on seed and request, as a real judge's does."""

    def rule(judged: dict[str, Any]) -> dict[str, Any]:
        key = json.dumps([seed, judged["identity"]], sort_keys=True)
        generator = random.Random(hashlib.sha256(key.encode()).digest())
        return {"quality": min(5, max(1, round(generator.gauss(center(judged["the answer"]), spread))))}

    return StubJudge(rule)


def questions(count: int) -> list[Item]:
    """Items with different questions."""
    return [
        Item(f"q{number}", f"items.jsonl:{number}", f"What is {number}?", (Message("user", f"What is {number}?"),))
        for number in range(count)
    ]


def answers_to(items: Sequence[Item], write: Callable[[int], str]) -> list[Answer]:
    """The answer that `write` makes of each item's place."""
    return [Answer(item.id, text=write(number)) for number, item in enumerate(items)]


def _by_sign(difference: float) -> str:
    return "first" if difference > 0 else "second" if difference < 0 else "tie"
