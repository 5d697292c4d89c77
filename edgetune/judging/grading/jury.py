"""The judges of a suite, asked as one panel: grades, preferences, the A/A control, and what all of it took."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

from edgetune.judging.asking.asker import Asker
from edgetune.judging.asking.cache import AnswerCache
from edgetune.judging.asking.cost import Budget, Costs
from edgetune.judging.asking.request import JudgeRequest
from edgetune.judging.grading.allowance import Allowance, Stop
from edgetune.judging.grading.checks import check_pairwise, check_pointwise, control_sample
from edgetune.judging.grading.grades import Grade, Preference
from edgetune.judging.grading.pairwise import compare_answers, pairwise_requests
from edgetune.judging.grading.pointwise import grade_answers, pointwise_requests
from edgetune.judging.grading.summaries import unscored_share
from edgetune.judging.grading.validity import Validity
from edgetune.judging.results.judgement import Evaluation, control_name
from edgetune.judging.results.prepared import PreparedSuite
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.judge_file import Judge
from edgetune.judging.suites.suite import Gate


def requests_ahead(
    prepared: PreparedSuite,
    judge: Judge,
    candidate: Sequence[Answer],
    baseline: Sequence[Answer] | None,
    *,
    control: str,
    graded: bool,
) -> list[JudgeRequest]:
    """All that one judge will be asked; `graded` says that the baseline's grades are there already."""
    items, rubric, repeats = prepared.items, prepared.rubric, judge.repeats
    pairwise = prepared.suite.grading == "pairwise"
    if rubric is None or (pairwise and baseline is None):
        return []
    if baseline is None:
        return pointwise_requests(items, candidate, rubric, repeats)
    drawn, answers = control_sample(items, baseline, prepared.suite.gate.control)
    if pairwise:
        return [
            *pairwise_requests(items, candidate, baseline, rubric, repeats),
            *pairwise_requests(drawn, answers, answers, rubric, repeats, control=control),
        ]
    return [
        *pointwise_requests(items, candidate, rubric, repeats),
        *pointwise_requests(drawn, answers, rubric, repeats, control=control),
        *([] if graded else pointwise_requests(items, baseline, rubric, repeats)),
    ]


class Jury:
    """Asks every judge of a question."""

    def __init__(
        self, prepared: PreparedSuite, *, cache: AnswerCache | None, budget: Budget, threads: int | None = None
    ) -> None:
        assert prepared.rubric is not None
        self._question, self._rubric = prepared, prepared.rubric
        stop = Stop()
        self._askers = [
            Asker(judge, cache=cache, budget=budget, threads=threads, stop=stop) for judge in prepared.judges
        ]

    def plan(self, candidate: Evaluation, baseline: Evaluation | None) -> None:
        """Count the verdicts that are ahead, so that a judge is not asked on when it is certain to be invalid.

        Grades of the baseline that are there already count among the judge's verdicts.
        """
        for asker in self._askers:
            there = () if baseline is None or self._question.suite.grading == "pairwise" else baseline.grades
            known = unscored_share(each for each in there if each.judge == asker.judge.name)
            ahead = requests_ahead(
                self._question,
                asker.judge,
                candidate.answers,
                None if baseline is None else baseline.answers,
                control=_control_of(candidate),
                graded=bool(there),
            )
            asker.allowance = Allowance(len(ahead) + known.of, self._gate.max_unscored, known.count)

    @property
    def costs(self) -> Costs:
        """What all judges took up to now."""
        return functools.reduce(operator.add, (asker.costs for asker in self._askers))

    @property
    def notes(self) -> list[str]:
        """What the judges do not give, each said once."""
        return list(dict.fromkeys(note for asker in self._askers for note in asker.notes))

    def grade(self, answers: Sequence[Answer]) -> tuple[Grade, ...]:
        """Every answer graded by every judge; `answers` are in the order of the items."""
        return self._grade(self._question.items, answers)

    def compare(self, candidate: Sequence[Answer], baseline: Sequence[Answer]) -> tuple[Preference, ...]:
        """Every pair of answers compared by every judge in both orders."""
        return self._compare(self._question.items, candidate, baseline)

    def check_grades(self, candidate: Evaluation, baseline: Evaluation | None) -> Validity:
        """Whether the judges' grades can be trusted; some of the baseline's answers are graded anew for it."""
        if baseline is None:
            return check_pointwise(candidate.answers, candidate.grades, self._gate)
        items, answers = control_sample(self._question.items, baseline.answers, self._gate.control)
        return check_pointwise(
            candidate.answers,
            candidate.grades,
            self._gate,
            baseline=baseline.answers,
            baseline_grades=baseline.grades,
            control=self._grade(items, answers, control=_control_of(candidate)),
        )

    def check_preferences(
        self, candidate: Evaluation, baseline: Evaluation, preferences: Sequence[Preference]
    ) -> Validity:
        """Whether the judges' preferences can be trusted; some of the baseline's answers meet themselves for it."""
        items, answers = control_sample(self._question.items, baseline.answers, self._gate.control)
        control = self._compare(items, answers, answers, control=_control_of(candidate))
        return check_pairwise(candidate.answers, baseline.answers, preferences, self._gate, control=control)

    @property
    def _gate(self) -> Gate:
        return self._question.suite.gate

    def _grade(
        self, items: Sequence[Item], answers: Sequence[Answer], *, control: str | None = None
    ) -> tuple[Grade, ...]:
        return tuple(
            grade
            for asker in self._askers
            for grade in grade_answers(
                items, answers, self._rubric, asker.judge.name, asker.judge.repeats, asker, control=control
            )
        )

    def _compare(
        self,
        items: Sequence[Item],
        candidate: Sequence[Answer],
        baseline: Sequence[Answer],
        *,
        control: str | None = None,
    ) -> tuple[Preference, ...]:
        return tuple(
            preference
            for asker in self._askers
            for preference in compare_answers(
                items,
                candidate,
                baseline,
                self._rubric,
                asker.judge.name,
                asker.judge.repeats,
                asker,
                control=control,
            )
        )


def _control_of(candidate: Evaluation) -> str:
    return control_name(candidate.kind, candidate.fingerprint, candidate.answers)
