"""All that one run of the judge found: what the terminal shows and the report keeps."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.judging.evaluate import Evaluation
from edgetune.judging.gate import Verdict
from edgetune.judging.statistics import Interval, wilson_interval
from edgetune.judging.suite import Suite


@dataclass(frozen=True)
class Judgement:
    """A candidate on a suite and, where there was a baseline, the two compared.

    `hashes` names by SHA-256 what shaped the predictions: the suite's settings and its data. `created` is the time of
    the judgement in UTC (ISO 8601).
    """

    suite: Suite
    hashes: dict[str, str]
    created: str
    candidate: Evaluation
    baseline: Evaluation | None = None
    verdict: Verdict | None = None

    @property
    def exit_code(self) -> int:
        """0 passed or not compared, 1 regression, 3 inconclusive."""
        return 0 if self.verdict is None else self.verdict.exit_code

    @property
    def confidence(self) -> float:
        """Of all intervals: 1 - alpha of the suite's gate."""
        return 1 - self.suite.gate.alpha

    def accuracy_interval(self, evaluation: Evaluation) -> Interval:
        """Wilson's interval of a model's accuracy."""
        return wilson_interval(evaluation.metrics.right, evaluation.metrics.items, self.confidence)
