"""`edgetune.inspect`: what a GGUF file holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.api.public import PathLike, public

if TYPE_CHECKING:
    from edgetune.gguf.verification.inspection import Inspection


@public
def inspect(file: PathLike, *, check: bool = False) -> Inspection:
    """A GGUF file's tensor types, sizes, vocabulary, chat template, metadata and origin.

    With `check`, every tensor is compared with the checksum that export wrote: VerificationFailed where one differs, a
    warning where there is nothing to compare with. Raises ModelError for a file that is missing, no GGUF or truncated.
    """
    from edgetune.gguf.verification.inspection import inspect_file

    file = Path(file)
    found = inspect_file(file)
    if not check:
        return found
    from edgetune.gguf.checksums import require_checksums
    from edgetune.models.gguf_file import GgufFile

    sums = require_checksums(GgufFile(file))
    if sums is None:
        events.warn(f"{file} contains no checksums to compare with; files written by edgetune export contain them")
    elif sums.rewritten:
        events.warn(f"another program has rewritten tensors of {file} since its export, so the checksums do not apply")
    return replace(found, checksums=sums)
