"""Whether verdicts can be trusted: what stands in the way, and what a reader should know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Validity:
    """`problems` make the judgement invalid, `notes` are what its reader should know. Both are sentences."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def problem(cls, text: str) -> Validity:
        return cls(problems=(text,))

    @classmethod
    def note(cls, text: str) -> Validity:
        return cls(notes=(text,))

    def __add__(self, other: Validity) -> Validity:
        return Validity(self.problems + other.problems, self.notes + other.notes)
