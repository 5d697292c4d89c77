"""The model under test, and how it is asked. Today that is a GGUF file in llama.cpp."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgetune.data.example import Message
from edgetune.errors import ModelError, UsageError
from edgetune.judging.suite import Suite
from edgetune.runtime.classify import Prediction

Predict = Callable[[Sequence[Message]], Prediction]


def check_subject(model: Path) -> None:
    """Raise ModelError when there is no such file, and UsageError when it is anything but a GGUF file."""
    remedy = "`edgetune export` makes a GGUF file of a run or model; judge that"
    if not model.exists():
        raise ModelError("there is no such file", where=model, remedy=remedy)
    if model.is_dir():
        raise UsageError("is a folder, and the judge runs GGUF files", where=model, remedy=remedy)
    with model.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UsageError("is not a GGUF file, and the judge runs no other", where=model, remedy=remedy)


@contextmanager
def open_subject(model: Path, suite: Suite, *, threads: int | None = None) -> Iterator[Predict]:
    """Load the model and yield the function that answers one item as the suite's scoring says. Raises ModelError."""
    from edgetune.runtime.classify import classify_by_generation, classify_by_likelihood
    from edgetune.runtime.session import Session

    classify = classify_by_likelihood if suite.scoring == "likelihood" else classify_by_generation
    with Session.open(model, threads=threads) as session:
        yield lambda messages: classify(session, messages, suite.labels)


def hash_file(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
