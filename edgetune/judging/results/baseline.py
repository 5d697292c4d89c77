"""Baselines from earlier reports: the candidate that was judged there, on the same suite and items."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgetune import events
from edgetune.errors import DataError
from edgetune.judging.results.evaluate import read_again
from edgetune.judging.results.judgement import Evaluation
from edgetune.judging.results.prepared import LABEL_READING_PART, PreparedSuite
from edgetune.judging.subjects.written import separated

REPORT_FORMAT = "edgetune judge report 3"
"""The format that report.json names, so that no other JSON file is taken for one."""

_EARLIER_FORMAT = "edgetune judge report 2"
"""Fingerprints of folders and runs covered their weights alone, and verdicts were read by other rules."""

_REMEDY = "give a report.json that `edgetune judge --out` wrote, or the baseline model itself"


def is_report(reference: str) -> bool:
    """True for a .json file that is a report, or has a report's name."""
    path = Path(reference)
    if path.name == "report.json" or path.suffix != ".json" or not path.is_file():
        return path.name == "report.json"
    with path.open("rb") as file:
        return b'"edgetune judge report' in file.read(200)


def read_baseline(report: Path, prepared: PreparedSuite) -> Evaluation:
    """The evaluation of the model that `report` judged, its labels read from its answers as they are read today.

    Of a report in the earlier format only the answers are used; the judges grade them again. Raises DataError when the
    file is no report of `edgetune judge`, or naming what differs when it answered another question.
    """
    try:
        document: Any = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise DataError(f"cannot be read as a report ({problem})", where=report, remedy=_REMEDY) from None
    written_as = document.get("format") if isinstance(document, dict) else None
    if written_as not in (REPORT_FORMAT, _EARLIER_FORMAT):
        raise DataError(
            "is not a report of edgetune judge, or comes from another version", where=report, remedy=_REMEDY
        )
    try:
        evaluation = TypeAdapter(Evaluation).validate_python(document.get("candidate"))
    except ValidationError as problem:
        field = ".".join(str(step) for step in problem.errors()[0]["loc"])
        raise DataError(f"the report is damaged at candidate.{field}", where=report, remedy=_REMEDY) from None
    read_anew = evaluation.kind != "outputs"  # which may have named labels beside its texts
    hashes, recorded = prepared.hashes, document.get("hashes")
    recorded = recorded if isinstance(recorded, dict) else {}
    different = [part for part in sorted({*hashes, *recorded}) if hashes.get(part) != recorded.get(part)]
    if read_anew:
        different = [part for part in different if part != LABEL_READING_PART]
    if different:
        raise DataError(
            f"this baseline cannot be compared: it was judged with another {' and another '.join(different)}",
            where=report,
            remedy="judge the baseline model again with this suite and these judges",
        )
    if [answer.id for answer in evaluation.answers] != [item.id for item in prepared.items]:
        raise DataError("the report is damaged: its items are not the suite's", where=report, remedy=_REMEDY)
    if written_as == _EARLIER_FORMAT:
        evaluation = _from_earlier(evaluation, report)
    answers = (read_again(answer, prepared.suite) if read_anew else separated(answer) for answer in evaluation.answers)
    return replace(evaluation, answers=tuple(answers))


def _from_earlier(evaluation: Evaluation, report: Path) -> Evaluation:
    """What is still valid of a report in the earlier format, with a note on the rest."""
    lost = []
    if evaluation.kind in ("run", "folder"):
        lost.append("its fingerprint covers the weights only, so it cannot prove that two models are the same")
    if evaluation.grades:
        lost.append("its grades were read by other rules, so its answers are graded again")
    if lost:
        events.note(f"{report}: this report comes from an earlier version: {'; '.join(lost)}")
    return replace(evaluation, grades=())
