"""Judges and models behind a stub of an endpoint: what they are asked, and how."""

from __future__ import annotations

from typing import Any

from edgetune.data.example import Message
from edgetune.judging.asking.request import Failed, JudgeRequest, Reply, VerdictForm
from edgetune.judging.asking.schedule import ask_all
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.judge_file import EndpointJudge
from edgetune.judging.suites.suite import Suite
from support.stub_endpoint import StubEndpoint

FORM = VerdictForm({"correctness": (1, 2, 3, 4, 5)})
VERDICT = '{"reason": "fine", "correctness": 4}'

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


def question(number: int, words: str = "") -> JudgeRequest:
    return JudgeRequest({"number": number}, lambda: (Message("user", f"{words}grade {number}"),), FORM)


def judge_at(url: str, **settings: Any) -> EndpointJudge:
    return EndpointJudge(**{"name": "stub", "model": "stub", "url": url, "key": None, "connections": 4, **settings})


def ask(stub: StubEndpoint, number: int = 1, **settings: Any) -> tuple[list[Reply | Failed], list[str]]:
    notes: list[str] = []
    replies = ask_all(
        [question(n) for n in range(number)], judge_at(stub.url, **settings), cache=None, on_note=notes.append
    )
    return replies, notes


def number_of(body: dict[str, Any]) -> int:
    return int(body["messages"][-1]["content"].split()[-1])


def items(number: int) -> list[Item]:
    return [Item(str(n), f"data.jsonl:{n}", f"q {n}", (Message("user", f"q {n}"),)) for n in range(number)]


def suite(**settings: Any) -> Suite:
    data = [{"source": "x.jsonl", "format": "prompt"}]
    return Suite(**{"name": "s", "task": "generate", "data": data, **settings})
