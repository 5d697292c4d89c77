"""`edgetune inspect`: show the contents of a GGUF file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetune import console
from edgetune.cli.options import JsonOption

if TYPE_CHECKING:
    from edgetune.gguf.checksums import ChecksumReport


def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A GGUF file: a model, a LoRA adapter or an importance matrix.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Compare every tensor with the checksum that export wrote.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show a GGUF file's tensor types, sizes, vocabulary, chat template, metadata and origin.

    Exit code 1 when --check finds a tensor whose bytes have changed since export.
    """
    console.configure(json_mode=json)
    from edgetune.gguf.verification.inspection import inspect_file
    from edgetune.gguf.verification.proof_table import checksum_line, render_inspection

    found = inspect_file(file)
    if not check:
        console.document(asdict(found))
        console.result(render_inspection(found))
        return
    report = _compare(file)
    console.document({**asdict(found), "checksums": None if report is None else asdict(report)})
    console.result(render_inspection(found))
    if report is not None and not report.rewritten:
        console.result(f"checksums: {checksum_line(report.same)}")


def _compare(file: Path) -> ChecksumReport | None:
    """Compare with the stored checksums, or warn if there are none. Raises VerificationFailed for a damaged file."""
    from edgetune.gguf.checksums import require_checksums
    from edgetune.models.gguf_file import GgufFile

    report = require_checksums(GgufFile(file))
    if report is None:
        console.warn(f"{file} contains no checksums to compare with; files written by edgetune export contain them")
    elif report.rewritten:
        console.warn(f"another program has rewritten tensors of {file} since its export, so the checksums do not apply")
    return report
