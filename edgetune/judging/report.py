"""The report folder: report.json (everything), report.md (for a pull request), confusion.png."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgetune import __version__
from edgetune.judging.baseline import REPORT_FORMAT
from edgetune.judging.confusion import Panel, panels_of, shown_columns
from edgetune.judging.evaluate import Evaluation, ItemResult
from edgetune.judging.gate import NO_VERDICT, Verdict
from edgetune.judging.judgement import Judgement
from edgetune.judging.metrics_table import metrics_headings, metrics_rows
from edgetune.judging.picture import draw_matrices
from edgetune.judging.wording import percent, point_count
from edgetune.outputs import staged_folder

_LISTED_ITEMS = 100
_LISTED_CHARACTERS = 200


def write_report(judgement: Judgement, folder: Path, *, force: bool = False) -> None:
    """Write the report folder, complete or not at all. Raises OutputError when it exists (without `force`)."""
    with staged_folder(folder, force=force) as staged:
        document = json.dumps(report_document(judgement), indent=2, ensure_ascii=False, allow_nan=False)
        (staged / "report.json").write_text(document + "\n", encoding="utf-8")
        (staged / "report.md").write_text(report_markdown(judgement), encoding="utf-8")
        draw_matrices(panels_of(judgement), staged / "confusion.png")


def report_document(judgement: Judgement) -> dict[str, Any]:
    """The whole judgement as plain values for JSON. As a baseline, its candidate is the one that counts."""
    verdict = judgement.verdict
    return {
        "format": REPORT_FORMAT,
        "edgetune": __version__,
        "created": judgement.created,
        "suite": judgement.suite.model_dump(mode="json", exclude={"data"}),
        "hashes": judgement.hashes,
        "exit_code": judgement.exit_code,
        "verdict": None if verdict is None else {**asdict(verdict), "reason": verdict.reason},
        "candidate": _evaluation_document(judgement, judgement.candidate),
        "baseline": None if judgement.baseline is None else _evaluation_document(judgement, judgement.baseline),
    }


def _evaluation_document(judgement: Judgement, evaluation: Evaluation) -> dict[str, Any]:
    return {**asdict(evaluation), "accuracy_interval": asdict(judgement.accuracy_interval(evaluation))}


def report_markdown(judgement: Judgement) -> str:
    """The judgement for people: the verdict, the metrics, the matrices, the items that got worse."""
    suite, verdict = judgement.suite, judgement.verdict
    title = "Not compared" if verdict is None else verdict.outcome
    parts = [
        f"# {title}: {_cell(judgement.candidate.name)} on {suite.name}",
        NO_VERDICT if verdict is None else verdict.reason,
        _table(metrics_headings(judgement), metrics_rows(judgement)),
        _method(verdict),
        "## Confusion matrices",
        "![True labels down, predicted labels across](confusion.png)",
        *_matrices(panels_of(judgement)),
    ]
    if judgement.baseline is not None:
        parts += ["## Items that got worse", _items_that_got_worse(judgement.candidate, judgement.baseline)]
    parts += ["## What was measured", _provenance(judgement)]
    return "\n\n".join(parts) + "\n"


def _method(verdict: Verdict | None) -> str:
    if verdict is None:
        return "The accuracy's interval is Wilson's."
    return (
        "Differences are in points. The accuracies have Wilson's intervals, their difference has Bonett and Price's. "
        f"A loss of at least {point_count(verdict.margin)} that is significant by McNemar's mid-p test "
        f"(α = {verdict.alpha:g}) is a regression; the candidate passes when the interval rules such a loss out."
    )


def _matrices(panels: list[Panel]) -> list[str]:
    columns = shown_columns(panels)
    parts = []
    for panel in panels:
        rows = [
            [label, *(str(count) for count in counts[: len(columns)])]
            for label, counts in zip(panel.metrics.labels, panel.metrics.confusion, strict=True)
        ]
        parts.append(f"{_cell(panel.title)} (accuracy {percent(panel.metrics.accuracy)})")
        parts.append(_table(["true \\ predicted", *columns], rows))
    return parts


def _items_that_got_worse(candidate: Evaluation, baseline: Evaluation) -> str:
    worse = [(now, before) for now, before in zip(candidate.items, baseline.items, strict=True) if _lost(now, before)]
    if not worse:
        return "None: whatever the baseline got right, the candidate gets right."
    rows = [
        [now.id, now.where, now.text, now.gold, _answer(before), _answer(now)] for now, before in worse[:_LISTED_ITEMS]
    ]
    table = _table(["id", "where", "text", "true label", "baseline", "candidate"], rows)
    unlisted = len(worse) - len(rows)
    return table if unlisted == 0 else f"{table}\n\n{unlisted} more are in report.json."


def _lost(now: ItemResult, before: ItemResult) -> bool:
    return before.right and not now.right


def _answer(result: ItemResult) -> str:
    if result.predicted is not None:
        return result.predicted
    return "unparsed" if result.answer is None else f"unparsed: {result.answer}"


def _provenance(judgement: Judgement) -> str:
    suite, candidate, baseline = judgement.suite, judgement.candidate, judgement.baseline
    lines = [f"- suite {suite.name}: {candidate.metrics.items} items, scored by {suite.scoring}"]
    for role, evaluation in (("baseline", baseline), ("candidate", candidate)):
        if evaluation is not None:
            lines.append(f"- {role} {_cell(evaluation.model)}, SHA-256 `{evaluation.sha256}`")
    lines.append(f"- edgetune {__version__}; every answer, and the hashes of suite and data, are in report.json")
    return "\n".join(lines)


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) if cell != '---' else cell for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text on one line, cut to a readable length, in which Markdown sees no table, markup or HTML."""
    line = " ".join(text.split())
    if len(line) > _LISTED_CHARACTERS:
        line = f"{line[: _LISTED_CHARACTERS - 1]}…"
    for character in "\\`*_[]|":
        line = line.replace(character, f"\\{character}")
    return line.replace("&", "&amp;").replace("<", "&lt;")
