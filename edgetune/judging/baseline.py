"""Baselines that were measured before: the candidate of an earlier report, on the same suite and items."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgetune.errors import DataError
from edgetune.judging.items import Item
from edgetune.judging.judgement import Evaluation

REPORT_FORMAT = "edgetune judge report 2"
"""The mark that report.json carries, so that no other JSON file is taken for one."""

_REMEDY = "give a report.json that `edgetune judge --out` wrote, or the baseline model itself"


def is_report(reference: str) -> bool:
    """True for a .json file that is a report, or is called like one."""
    path = Path(reference)
    if path.name == "report.json" or path.suffix != ".json" or not path.is_file():
        return path.name == "report.json"
    with path.open("rb") as file:
        return b'"edgetune judge report' in file.read(200)


def read_baseline(report: Path, hashes: Mapping[str, str], items: Sequence[Item]) -> Evaluation:
    """The evaluation of the model that `report` judged.

    `hashes` are those of the present suite, its data, rubric and judges. Raises DataError when the file is no report of
    `edgetune judge`, or naming what differs when it answered another question.
    """
    try:
        document: Any = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise DataError(f"cannot be read as a report ({problem})", where=report, remedy=_REMEDY) from None
    if not isinstance(document, dict) or document.get("format") != REPORT_FORMAT:
        raise DataError("is not a report of edgetune judge, or of another version", where=report, remedy=_REMEDY)
    recorded = document.get("hashes")
    recorded = recorded if isinstance(recorded, dict) else {}
    different = [part for part in sorted({*hashes, *recorded}) if hashes.get(part) != recorded.get(part)]
    if different:
        raise DataError(
            f"this baseline cannot be compared: it was judged with another {' and another '.join(different)}",
            where=report,
            remedy="judge the baseline model again with this suite and these judges",
        )
    try:
        evaluation = TypeAdapter(Evaluation).validate_python(document.get("candidate"))
    except ValidationError as problem:
        field = ".".join(str(step) for step in problem.errors()[0]["loc"])
        raise DataError(f"the report is damaged at candidate.{field}", where=report, remedy=_REMEDY) from None
    if [answer.id for answer in evaluation.answers] != [item.id for item in items]:
        raise DataError("the report is damaged: its items are not the suite's", where=report, remedy=_REMEDY)
    return evaluation
