"""Baselines that were measured before: the candidate of an earlier report, on the same suite and items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgetune.errors import DataError
from edgetune.judging.evaluate import Evaluation
from edgetune.judging.items import Item

REPORT_FORMAT = "edgetune judge report 1"
"""The mark that report.json carries, so that no other JSON file is taken for one."""


def read_baseline(report: Path, hashes: dict[str, str], items: Sequence[Item]) -> Evaluation:
    """The evaluation of the model that `report` judged.

    `hashes` are those of the present suite and its data. Raises DataError when the file is no report of `edgetune
    judge`, or naming what differs when it answered another question.
    """
    remedy = "give a report.json that `edgetune judge --out` wrote, or the baseline's GGUF file"
    try:
        document: Any = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise DataError(f"cannot be read as a report ({problem})", where=report, remedy=remedy) from None
    if not isinstance(document, dict) or document.get("format") != REPORT_FORMAT:
        raise DataError("is not a report of edgetune judge, or of another version", where=report, remedy=remedy)
    recorded = document.get("hashes")
    recorded = recorded if isinstance(recorded, dict) else {}
    different = [part for part in sorted({*hashes, *recorded}) if hashes.get(part) != recorded.get(part)]
    if different:
        raise DataError(
            f"this baseline cannot be compared: it was judged with another {' and another '.join(different)}",
            where=report,
            remedy="judge the baseline's GGUF file again with this suite",
        )
    try:
        evaluation = TypeAdapter(Evaluation).validate_python(document.get("candidate"))
    except ValidationError as problem:
        field = ".".join(str(step) for step in problem.errors()[0]["loc"])
        raise DataError(f"the report is damaged at candidate.{field}", where=report, remedy=remedy) from None
    if [(result.id, result.gold) for result in evaluation.items] != [(item.id, item.gold) for item in items]:
        raise DataError("the report is damaged: its items are not the suite's", where=report, remedy=remedy)
    return evaluation
