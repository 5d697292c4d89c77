"""The certificate of a calibration, which a gate may require of a judge."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from edgetune.errors import DataError, UsageError
from edgetune.judging.calibration.calibrate import Calibration
from edgetune.judging.grading.prompt import PROMPT_VERSION
from edgetune.judging.suites.judge_file import Judge, judge_hash
from edgetune.judging.suites.rubric import Rubric
from edgetune.outputs import write_text

CERTIFICATE_FORMAT = "edgetune judge certificate 2"

_OLDER_FORMATS = {
    "edgetune judge certificate 1": "its measure of length accused noise, and passed judges that like short answers"
}
"""What is wrong with certificates of older formats."""


def certificate_document(calibration: Calibration) -> dict[str, Any]:
    """A calibration as plain JSON values."""
    return {"format": CERTIFICATE_FORMAT, "passed": calibration.passed, **asdict(calibration)}


def write_certificate(calibration: Calibration, file: Path, *, force: bool = False) -> None:
    """Write the certificate; that of a failed calibration says why it failed. Raises OutputError."""
    text = json.dumps(certificate_document(calibration), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(file, text + "\n", force=force)


def read_certificate(file: Path) -> Calibration:
    """Read a certificate. Raises DataError when there is none, or the file is something else."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("there is no such certificate", where=file, remedy=_CALIBRATE) from None
    except (OSError, ValueError) as problem:
        raise DataError(f"the certificate cannot be read ({problem})", where=file, remedy=_CALIBRATE) from None
    written_as = document.pop("format", None) if isinstance(document, dict) else None
    if isinstance(written_as, str) and written_as in _OLDER_FORMATS:
        what = f"the certificate has an older format ({_OLDER_FORMATS[written_as]})"
        remedy = "calibrate the judge again; answers in the cache are not requested again"
        raise DataError(what, where=file, remedy=remedy)
    if not isinstance(document, dict) or written_as != CERTIFICATE_FORMAT:
        raise DataError("this is not a certificate that this version wrote", where=file, remedy=_CALIBRATE)
    document.pop("passed", None)
    try:
        return TypeAdapter(Calibration).validate_python(document)
    except ValidationError as problem:
        error = problem.errors()[0]
        place = ".".join(map(str, error["loc"]))
        raise DataError(f"the certificate is damaged at {place} ({error['msg']})", where=file) from None


def check_certificate(judge: Judge, rubric: Rubric, grading: Literal["pointwise", "pairwise"]) -> None:
    """Check that a judge has passed a calibration with the same rubric, prompt and grading.

    Raises UsageError when it names no certificate or the calibration was of something else or failed, and DataError
    when the certificate cannot be read.
    """
    if judge.certificate is None:
        raise UsageError(
            "the gate requires a certificate of every judge, and this one names none",
            where=judge.name,
            remedy=_CALIBRATE,
        )
    file = Path(judge.certificate)
    certificate = read_certificate(file)
    checks = (
        ("judge", certificate.judge_hash == judge_hash(judge)),
        ("rubric", certificate.rubric_hash == rubric.sha256()),
        ("prompt", certificate.prompt_version == PROMPT_VERSION),
        ("way of grading", certificate.grading == grading),
    )
    changed = [name for name, same in checks if not same]
    if changed:
        raise UsageError(
            f"the certificate is for another {' and another '.join(changed)} than this judgement uses",
            where=file,
            remedy=_CALIBRATE,
        )
    if not certificate.passed:
        raise UsageError(
            f"the judge {judge.name} did not pass its calibration: {' '.join(certificate.failures)}".rstrip("."),
            where=file,
            remedy="name another judge",
        )


_CALIBRATE = "write one with `edgetune judge calibrate JUDGE --on DATA` and name it in the judge's file"
