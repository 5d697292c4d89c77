"""Suites, outputs and judges for tests of whole judgements: answers are files, and a judge is a function."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgetune.judging.asking.request import Failed, JudgeRequest, Reply
from edgetune.judging.suites.suite import Suite, load_suite

JUDGE = "http://127.0.0.1:9/v1#stub"
"""The reference of a judge that nobody listens for: functions answer in its place."""

CRITERIA = ("right", "whole")

Judge = Callable[[Mapping[str, Any]], str | Failed]
"""From a request's identity to what a judge writes."""


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_outputs(file: Path, outputs: Mapping[str, str] | Sequence[str]) -> Path:
    """A file of outputs made elsewhere, by id; ids are numbers from 1 where there are none."""
    pairs = outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs, start=1)
    return write_rows(file, [{"id": str(name), "output": output} for name, output in pairs])


def judged_suite(folder: Path, items: int = 40, **changes: Any) -> Suite:
    """Questions without references, graded on two criteria."""
    folder.mkdir(exist_ok=True)
    write_rows(folder / "items.jsonl", [{"prompt": f"question {number}"} for number in range(1, items + 1)])
    criterion = {"question": "Is it good?", "grades": {grade: f"grade {grade}" for grade in range(1, 6)}}
    (folder / "rubric.yaml").write_text(
        yaml.safe_dump({"name": "r", "criteria": {name: dict(criterion) for name in CRITERIA}})
    )
    values = {
        "name": "judged",
        "task": "generate",
        "data": [{"source": "items.jsonl", "format": "prompt"}],
        "metrics": ["length_words"],
        "rubric": "rubric.yaml",
        "judge": JUDGE,
        **changes,
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(values))
    return load_suite(str(folder / "suite.yaml"))


def grades(*values: int, reason: str = "because") -> str:
    """A verdict on the two criteria."""
    return json.dumps({"reason": reason, **dict(zip(CRITERIA, values * 2, strict=False))})


def winner(name: str) -> str:
    """A verdict on a pair."""
    return json.dumps({"reason": "because", "winner": name})


def put_judge(patch: pytest.MonkeyPatch, judge: Judge) -> list[Mapping[str, Any]]:
    """Let a function answer all judges, without cache. The list grows with the identities that it is asked about."""
    asked: list[Mapping[str, Any]] = []

    def ask_all(requests: Sequence[JudgeRequest], *_: Any, **__: Any) -> list[Reply | Failed]:
        asked.extend(request.identity for request in requests)
        answers = [judge(request.identity) for request in requests]
        return [answer if isinstance(answer, Failed) else Reply(answer) for answer in answers]

    patch.setattr("edgetune.judging.asking.asker.ask_all", ask_all)
    return asked
