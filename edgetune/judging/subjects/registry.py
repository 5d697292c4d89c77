"""Models under test: one file per kind, and the list of kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edgetune.errors import ModelError
from edgetune.judging.subjects import endpoint, folder, gguf
from edgetune.judging.subjects.outputs import outputs_file
from edgetune.judging.subjects.subject import Subject


@dataclass(frozen=True)
class SubjectKind:
    """One kind of model under test: which references it takes, and how one is opened (with so many CPU threads)."""

    recognizes: Callable[[str], bool]
    open: Callable[[str, int | None], Subject]


KINDS = (
    SubjectKind(endpoint.recognizes, lambda reference, _threads: endpoint.open_endpoint(reference)),
    SubjectKind(outputs_file.recognizes, lambda reference, _threads: outputs_file.open_outputs(reference)),
    SubjectKind(gguf.recognizes, lambda reference, threads: gguf.open_gguf(reference, threads=threads)),
    SubjectKind(folder.recognizes, lambda reference, _threads: folder.open_folder(reference)),
)
"""The first kind that recognizes a reference opens it."""


@contextmanager
def open_subject(reference: str, *, threads: int | None = None) -> Iterator[Subject]:
    """The model behind a reference: a GGUF, a run, a folder, a hub id, URL#MODEL, or a file of outputs.

    Raises ModelError for a reference of no kind, and what its kind raises.
    """
    for kind in KINDS:
        if kind.recognizes(reference):
            subject = kind.open(reference, threads)
            break
    else:
        raise ModelError(
            "is not a model that can be judged",
            where=reference,
            remedy="give a .gguf file, a run directory, a model folder, a hub id, URL#MODEL, or a .jsonl of outputs",
        )
    try:
        yield subject
    finally:
        subject.close()
