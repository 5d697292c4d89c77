"""All that one run of the judge found: what the terminal shows and the report keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from edgetune.judging.answer import Answer
from edgetune.judging.comparison import Difference
from edgetune.judging.gate import Verdict
from edgetune.judging.grading.grades import Grade, Preference
from edgetune.judging.items import Item
from edgetune.judging.statistics.intervals import Interval
from edgetune.judging.suite import Suite
from edgetune.metrics.classification import ClassificationMetrics


@dataclass(frozen=True)
class Measured:
    """One metric of one model: over all items, with its interval where there is one, and item by item.

    `values` has one entry per item, in their order; None where the item has none (an unscored verdict). It is empty
    for metrics that only exist over all items.
    """

    value: float
    interval: Interval | None
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Evaluation:
    """One model on one suite. `seconds` is the time for all items, without loading the model.

    `kind` is gguf, run, folder, endpoint or outputs; `fingerprint` tells two models apart: the SHA-256 of the file or
    the weights, of the outputs, or of the endpoint's address and model name.
    """

    model: str
    kind: str
    fingerprint: str
    size_bytes: int | None
    seconds: float | None
    answers: tuple[Answer, ...]
    measures: dict[str, Measured]
    """By name, in the order of the suite: task metrics first, then judged criteria."""
    classification: ClassificationMetrics | None = None
    grades: tuple[Grade, ...] = ()

    @property
    def name(self) -> str:
        """The model's file name, or what stands for it."""
        return self.model if self.kind == "endpoint" else PurePath(self.model).name


@dataclass(frozen=True)
class Costs:
    """What the judges took: verdicts asked for, taken from the cache, and what was paid (None: no price is known)."""

    asked: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0

    def __add__(self, other: Costs) -> Costs:
        """What both took; without a price of one there is none of both."""
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Costs(
            self.asked + other.asked,
            self.cached + other.cached,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            usd,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Judgement:
    """A candidate on a suite and, where there was a baseline, the two compared.

    `hashes` names by SHA-256 what shaped the results: the suite's settings, its data, rubric and judges. `created` is
    the time in UTC (ISO 8601). `measure_titles` etc. come from the registry of measures.
    """

    suite: Suite
    hashes: dict[str, str]
    created: str
    items: tuple[Item, ...]
    candidate: Evaluation
    baseline: Evaluation | None = None
    preferences: tuple[Preference, ...] = ()
    verdict: Verdict | None = None
    differences: tuple[Difference, ...] = ()
    """Of the metrics that both have and the gate does not compare."""
    judges: tuple[str, ...] = ()
    costs: Costs = Costs()
    notes: tuple[str, ...] = ()
    """What the reader should know: fallbacks of an endpoint, warnings of checks."""
    details: dict[str, Any] = field(default_factory=dict)
    """Settings of metrics that a reader needs to get the same numbers: the stemmer, the sentence splitter, versions."""

    @property
    def exit_code(self) -> int:
        """0 passed or not compared, 1 regression, 3 inconclusive, 4 judge invalid."""
        return 0 if self.verdict is None else self.verdict.exit_code

    @property
    def confidence(self) -> float:
        """Of all intervals: 1 - alpha of the suite's gate."""
        return 1 - self.suite.gate.alpha
