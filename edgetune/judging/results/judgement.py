"""The results of one run of `edgetune judge`, as the terminal and the report show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from edgetune.judging.asking.cost import Costs
from edgetune.judging.gate.comparison import Comparison, Outcome
from edgetune.judging.gate.gate import Verdict
from edgetune.judging.grading.grades import Grade, Preference
from edgetune.judging.metrics.estimate import MetricValue
from edgetune.judging.statistics.quantity import ComparedMetric, Difference
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.classification import ClassificationMetrics

Role = Literal["baseline", "candidate"]

Inconclusive = Literal["fail", "warn", "pass"]
"""What INCONCLUSIVE means for the exit code: fail is 3, warn is 0 with a warning, pass is 0."""


METRICS_KEY = "measures"
"""What `metrics` are called in report.json, whose readers know them by this name."""

KNOWN_BY_FILES = ("gguf", "run", "folder")
"""Kinds of models whose fingerprint covers everything that shapes an answer."""


@dataclass(frozen=True)
class Evaluation:
    """One model on one suite. `seconds` is the time for all items, without loading the model.

    `kind` is gguf, run, folder, endpoint or outputs; `fingerprint` tells two models apart: the SHA-256 of all files
    that shape an answer, of the outputs, or of the endpoint's address and model name.
    """

    model: str
    kind: str
    fingerprint: str
    size_bytes: int | None
    seconds: float | None
    answers: tuple[Answer, ...]
    metrics: Annotated[dict[str, MetricValue], Field(validation_alias=METRICS_KEY)]
    """By name, in the order of the suite: task metrics first, then judged criteria."""
    classification: ClassificationMetrics | None = None
    grades: tuple[Grade, ...] = ()

    @property
    def name(self) -> str:
        """The model's file name, or an endpoint's address and model."""
        return self.model if self.kind == "endpoint" else PurePath(self.model).name

    @property
    def unanswered(self) -> dict[str, str]:
        """The items that the model left unanswered, with the reasons."""
        return {answer.id: answer.unanswered for answer in self.answers if answer.unanswered is not None}

    def is_same_model(self, other: Evaluation) -> bool:
        """Whether both are proven to be one model: by the files that each was made of.

        Equal outputs prove nothing about what wrote them, and an address nothing about what is behind it.
        """
        return self.fingerprint == other.fingerprint and {self.kind, other.kind} <= set(KNOWN_BY_FILES)


@dataclass(frozen=True, repr=False)
class Judgement:
    """A candidate on a suite and, where there was a baseline, the two compared.

    `hashes` names by SHA-256 what shaped the results: the suite's settings, its data, rubric and judges. `created` is
    the time in UTC (ISO 8601). `compared` holds, by name, every metric that candidate and baseline may have.
    """

    suite: Suite
    hashes: dict[str, str]
    created: str
    items: tuple[Item, ...]
    compared: Mapping[str, ComparedMetric]
    candidate: Evaluation
    baseline: Evaluation | None = None
    preferences: tuple[Preference, ...] = ()
    verdict: Verdict | None = None
    differences: tuple[Difference, ...] = ()
    """Of the metrics that both have and the gate does not compare."""
    judges: tuple[str, ...] = ()
    costs: Costs = field(default_factory=Costs)
    notes: tuple[str, ...] = ()
    """What the reader should know: fallbacks of an endpoint, warnings of checks."""
    details: dict[str, Any] = field(default_factory=dict)
    """Settings of metrics that a reader needs to get the same numbers: the stemmer, the sentence splitter, versions."""
    inconclusive: Inconclusive = "fail"

    _repr_html_: ClassVar[Callable[[Judgement], str]]
    """HTML for notebooks. `judging/run.py` sets it, because results do not import the report."""

    def __repr__(self) -> str:
        return f"<Judgement of {self.candidate.name} on {self.suite.name}: {self.outcome or 'not compared'}>"

    @property
    def outcome(self) -> Outcome | None:
        """PASS, REGRESSION, INCONCLUSIVE or JUDGE INVALID; None where there was no baseline."""
        return None if self.verdict is None else self.verdict.outcome

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The metrics that the gate compared, one by one."""
        return () if self.verdict is None else self.verdict.comparisons

    @property
    def sides(self) -> tuple[tuple[Role, Evaluation], ...]:
        """The models that were measured, the baseline first where there is one."""
        candidate: tuple[tuple[Role, Evaluation], ...] = (("candidate", self.candidate),)
        return candidate if self.baseline is None else (("baseline", self.baseline), *candidate)

    @property
    def exit_code(self) -> int:
        """0 passed or not compared, 1 regression, 3 inconclusive (or 0, see `inconclusive`), 4 judge invalid."""
        if self.verdict is None or self.tolerated:
            return 0
        return self.verdict.exit_code

    @property
    def tolerated(self) -> bool:
        """True for INCONCLUSIVE where that is not to stop a release; the other verdicts always count."""
        return (
            self.verdict is not None
            and self.verdict.outcome is Outcome.INCONCLUSIVE
            and self.inconclusive in ("warn", "pass")
        )

    @property
    def confidence(self) -> float:
        """Of all intervals: 1 - alpha of the suite's gate."""
        return 1 - self.suite.gate.alpha
