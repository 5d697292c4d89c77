"""The interface of every model under test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite


class Subject(Protocol):
    """A model under test, or outputs that one has written elsewhere.

    `reference` is how the user named it, `kind` one of gguf, run, folder, endpoint, outputs. `fingerprint` is a SHA-256
    over everything of the model that shapes its answers, as far as it can be known (see `Evaluation`). `runtime` is
    what runs it here: versions of libraries, the device, the type of numbers. `size_bytes` is None where it has none.
    """

    @property
    def reference(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def runtime(self) -> Mapping[str, str]: ...

    @property
    def size_bytes(self) -> int | None: ...

    def check(self, items: Sequence[Item], suite: Suite) -> None:
        """Raise an InputError when this kind of model cannot answer the suite; before any item is asked."""

    def answers(self, items: Sequence[Item], suite: Suite) -> Iterator[Answer]:
        """The answers in the order of the items, each as soon as it is there."""

    def close(self) -> None:
        """Free its resources."""
