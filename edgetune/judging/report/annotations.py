"""GitHub's workflow commands: what a run in GitHub Actions prints to show its result beside the code."""

from __future__ import annotations

from typing import Literal

from edgetune.judging.gate.comparison import Comparison, Outcome
from edgetune.judging.gate.explanation import explain
from edgetune.judging.gate.gate import NO_VERDICT
from edgetune.judging.results.judgement import Judgement
from edgetune.visible_text import shortened, visible

Level = Literal["error", "warning", "notice"]

_LEVELS: dict[Outcome, Level] = {
    Outcome.REGRESSION: "error",
    Outcome.JUDGE_INVALID: "error",
    Outcome.INCONCLUSIVE: "warning",
    Outcome.PASS: "notice",
}
_MOST_OF_A_LEVEL = 10
"""GitHub shows so many errors, warnings and notices of a step each."""

_MOST_CHARACTERS = 4000


def github_annotations(judgement: Judgement) -> tuple[str, ...]:
    """One line for each problem of the judge and each comparison, the worst first; to be printed as they are."""
    verdict = judgement.verdict
    where = f"{judgement.candidate.name} on {judgement.suite.name}"
    if verdict is None:
        return (_command("notice", f"edgetune judge: {where}", NO_VERDICT),)
    told = [(_LEVELS[Outcome.JUDGE_INVALID], f"JUDGE INVALID: {where}", problem) for problem in verdict.problems]
    levels = {**_LEVELS, Outcome.INCONCLUSIVE: "notice"} if judgement.inconclusive == "pass" else _LEVELS
    told += [
        (levels[one.outcome], f"{one.outcome}: {one.title} of {where}", explain(one))
        for one in sorted(verdict.comparisons, key=_severity)
    ]
    lines = []
    for level in ("error", "warning", "notice"):
        lines += [_command(kind, title, text) for kind, title, text in told if kind == level][:_MOST_OF_A_LEVEL]
    return tuple(lines)


def _severity(comparison: Comparison) -> int:
    return list(_LEVELS).index(comparison.outcome)


def _command(level: Level, title: str, text: str) -> str:
    """`::level title=…::text`, escaped as actions/toolkit does (packages/core/src/command.ts)."""
    shown = _escape(shortened(visible(text), _MOST_CHARACTERS))
    name = _escape(shortened(visible(title), _MOST_CHARACTERS)).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={name}::{shown}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
