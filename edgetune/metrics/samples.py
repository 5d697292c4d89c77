"""One model's answers with what is right, as metrics take them: from a training's evaluation or from judging."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgetune.errors import DataError


@dataclass(frozen=True)
class Sample:
    """One model's answer to one item, with what is right. What the task does not ask for is None, or empty.

    `text` is the answer; where `answered` is False there is none, and `text` is empty. `predicted` is the label that
    the answer names, None where it names none or several. `nll_nats` is the sum of the negative log-likelihoods of
    `nll_tokens` tokens of the item's own text, which spans `nll_bytes` bytes of UTF-8.
    """

    id: str
    text: str | None = None
    answered: bool = True
    references: tuple[str, ...] = ()
    gold: str | None = None
    predicted: str | None = None
    generated_tokens: int | None = None
    tokens_per_second: float | None = None
    first_token_seconds: float | None = None
    nll_nats: float | None = None
    nll_tokens: int | None = None
    nll_bytes: int | None = None


@dataclass(frozen=True)
class Samples:
    """All samples of one model, in the order of the items; the task's `labels` and JSON schema where it has them."""

    samples: tuple[Sample, ...]
    labels: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def column(self, name: str) -> list[Any]:
        """One field of every sample."""
        return [getattr(sample, name) for sample in self.samples]

    def at(self, places: Sequence[int]) -> Samples:
        """The samples at these places."""
        return replace(self, samples=tuple(self.samples[place] for place in places))

    def check(self, needs: Sequence[str]) -> None:
        """Raise DataError where a field that is needed is missing: from any sample, or, of those that an item may lack
        (references, speed, token counts), from all of them."""
        for name in needs:
            if name == "json_schema":
                if self.json_schema is None:
                    raise DataError("there is no JSON schema", remedy="give json_schema: in the suite")
                continue
            values = self.column(name)
            missing = [place for place, value in enumerate(values) if value is None or value == ()]
            if not missing or (name in _SOME_ARE_ENOUGH and len(missing) < len(values)):
                continue
            what, remedy = _LACKING[name]
            first = self.samples[missing[0]].id
            raise DataError(what.format(missing=len(missing), total=len(values), first=first), remedy=remedy)


def against_references(score: Callable[[str, Sequence[str]], float]) -> Callable[[Sample], float | None]:
    """`score` of a sample's text against its references: None without references, 0 for an item without an answer."""

    def of_sample(sample: Sample) -> float | None:
        if not sample.references or sample.text is None:
            return None
        return float(score(sample.text, sample.references)) if sample.answered else 0.0

    return of_sample


_NO_SPEED = ("the speed of these answers was not measured", None)

_LACKING: dict[str, tuple[str, str | None]] = {
    "text": ("{missing} of {total} answers have no text, such as that to {first}", None),
    "references": ("no item has a reference to compare answers with", None),
    "gold": ("{missing} of {total} items have no right label", None),
    "generated_tokens": ("token counts are missing for these answers", None),
    "tokens_per_second": _NO_SPEED,
    "first_token_seconds": _NO_SPEED,
    "nll_nats": ("{missing} of {total} answers have no likelihood (nll_nats)", None),
    "nll_tokens": (
        "{missing} of {total} answers lack the number of scored tokens (nll_tokens)",
        "use the metric bits_per_byte instead",
    ),
    "nll_bytes": ("{missing} of {total} answers lack the size of their text (nll_bytes)", None),
}

NEEDS = (*_LACKING, "json_schema")
"""What a metric may need."""

_SOME_ARE_ENOUGH = ("references", "generated_tokens", "tokens_per_second", "first_token_seconds")
