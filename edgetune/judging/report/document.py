"""report.json: the whole judgement as plain values, which also serves as a baseline later."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any

from edgetune import __version__
from edgetune.judging.baseline import REPORT_FORMAT
from edgetune.judging.endings import count_endings
from edgetune.judging.gate import explain
from edgetune.judging.judgement import Judgement

_SURROGATE = re.compile("[\ud800-\udfff]")


def report_document(judgement: Judgement) -> dict[str, Any]:
    """The whole judgement as plain values for JSON. As a baseline, its candidate is the one that counts.

    Where the suite's data lie on this machine is left out; its hash is among `hashes`.
    """
    verdict = judgement.verdict
    return {
        "format": REPORT_FORMAT,
        "edgetune": __version__,
        "created": judgement.created,
        "suite": judgement.suite.model_dump(mode="json", exclude={"data"}),
        "hashes": judgement.hashes,
        "exit_code": judgement.exit_code,
        "inconclusive": judgement.inconclusive,
        "verdict": None
        if verdict is None
        else {
            **asdict(verdict),
            "reason": verdict.reason,
            "comparisons": [
                {**asdict(comparison), "explanation": explain(comparison)} for comparison in verdict.comparisons
            ],
        },
        "differences": [asdict(difference) for difference in judgement.differences],
        "judges": judgement.judges,
        "costs": asdict(judgement.costs),
        "notes": judgement.notes,
        "details": judgement.details,
        "items": [asdict(item) for item in judgement.items],
        "candidate": asdict(judgement.candidate),
        "baseline": None if judgement.baseline is None else asdict(judgement.baseline),
        "endings": {
            "candidate": asdict(count_endings(judgement.candidate.answers)),
            "baseline": None if judgement.baseline is None else asdict(count_endings(judgement.baseline.answers)),
        },
        "preferences": [asdict(preference) for preference in judgement.preferences],
    }


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON that can be encoded as UTF-8 whatever a model wrote: half a surrogate pair stays an escape.

    Raises ValueError for numbers that are not finite.
    """
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
