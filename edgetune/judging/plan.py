"""The plan of a judgement: which models are asked, and what the judges are asked about their answers.

`judge_model` carries it out, and `estimate_costs` prices it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgetune.judging.asking.request import JudgeRequest
from edgetune.judging.grading.checks import control_sample
from edgetune.judging.grading.pairwise import ComparingTask
from edgetune.judging.grading.pointwise import GradingTask
from edgetune.judging.results.baseline import is_report, read_baseline
from edgetune.judging.results.judgement import Evaluation
from edgetune.judging.results.prepared import PreparedSuite, check_comparable
from edgetune.judging.subjects.registry import open_subject
from edgetune.judging.subjects.subject import Subject
from edgetune.judging.suites.identity import hash_value


@dataclass(frozen=True)
class Sides:
    """The models of a judgement. The baseline is a model, or the `stored` evaluation of an earlier report, or none."""

    candidate: Subject
    baseline: Subject | None = None
    stored: Evaluation | None = None


@contextmanager
def opened_sides(
    prepared: PreparedSuite, model: str, baseline: str | None, *, threads: int | None = None
) -> Iterator[Sides]:
    """Open candidate and baseline once each, and check that they can answer the suite; no item is asked.

    Raises what `read_baseline`, `open_subject` and the checks of the models raise.
    """
    stored = None
    if baseline is not None:
        check_comparable(prepared)
        if is_report(baseline):
            stored = read_baseline(Path(baseline), prepared)
    with ExitStack() as stack:

        def opened(reference: str) -> Subject:
            subject = stack.enter_context(open_subject(reference, threads=threads))
            subject.check(prepared.items, prepared.suite)
            return subject

        candidate = opened(model)
        yield Sides(candidate, None if baseline is None or stored is not None else opened(baseline), stored)


@dataclass(frozen=True)
class JudgePlan:
    """What every judge of a suite is asked, in this order; None where there is nothing of that kind to ask.

    `regraded` and `self_compared` are A/A controls: some of the baseline's answers are graded again, or compared with
    themselves.
    """

    baseline: GradingTask | None = None
    candidate: GradingTask | None = None
    regraded: GradingTask | None = None
    pairs: ComparingTask | None = None
    self_compared: ComparingTask | None = None

    def requests(self, repeats: int) -> list[JudgeRequest]:
        """All that a judge is asked."""
        tasks = (self.baseline, self.candidate, self.regraded, self.pairs, self.self_compared)
        return [request for task in tasks if task is not None for request in task.requests(repeats)]


def plan_judging(prepared: PreparedSuite, candidate: Evaluation, baseline: Evaluation | None) -> JudgePlan:
    """What the judges are asked about these answers. Grades that the baseline has already are not asked for again.

    The control's questions name the candidate, so that every new candidate has a control of its own, and the same
    judgement done twice costs nothing.
    """
    items, rubric, suite = prepared.items, prepared.rubric, prepared.suite
    if rubric is None or (suite.grading == "pairwise" and baseline is None):
        return JudgePlan()
    if baseline is None:
        return JudgePlan(candidate=GradingTask(items, candidate.answers, rubric))
    drawn, answers = control_sample(items, baseline.answers, suite.gate.control)
    control = _control_name(candidate)
    if suite.grading == "pairwise":
        return JudgePlan(
            pairs=ComparingTask(items, candidate.answers, baseline.answers, rubric),
            self_compared=ComparingTask(drawn, answers, answers, rubric, control),
        )
    return JudgePlan(
        baseline=None if baseline.grades else GradingTask(items, baseline.answers, rubric),
        candidate=GradingTask(items, candidate.answers, rubric),
        regraded=GradingTask(drawn, answers, rubric, control),
    )


def _control_name(candidate: Evaluation) -> str:
    """What makes a candidate's control its own. An endpoint keeps its fingerprint when other weights are put behind it,
    so its answers count too."""
    if candidate.kind != "endpoint":
        return candidate.fingerprint
    return hash_value([candidate.fingerprint, [answer.text for answer in candidate.answers]])
