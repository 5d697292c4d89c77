"""A judgement from start to end: what `edgetune judge` does, for Python."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from edgetune.judging.asking.cache import AnswerCache
from edgetune.judging.asking.cost import Budget, Costs
from edgetune.judging.calibration.certificate import check_certificate
from edgetune.judging.gate.gate import Verdict, decide
from edgetune.judging.grading.checks import check_pairwise, check_pointwise
from edgetune.judging.grading.grades import Preference
from edgetune.judging.grading.jury import Jury
from edgetune.judging.grading.summaries import mean_preferences
from edgetune.judging.grading.validity import Validity
from edgetune.judging.plan import Sides, opened_sides, plan_judging
from edgetune.judging.report import write_report
from edgetune.judging.report.notebook import judgement_html
from edgetune.judging.results.evaluate import evaluate, forget_answers, recompute_metrics, with_grades
from edgetune.judging.results.judgement import Evaluation, Judgement
from edgetune.judging.results.notes import find_silence, notes_on, notes_on_judges, unanswered_remarks
from edgetune.judging.results.pairing import check_tokens, compute_differences, pair_metrics
from edgetune.judging.results.prepared import PreparedSuite, prepare
from edgetune.judging.settings import DEFAULTS, Settings, check_judges, opened_cache
from edgetune.judging.subjects.subject import Subject
from edgetune.judging.suites.suite import Suite
from edgetune.metrics.registry import METRICS
from edgetune.outputs import check_target

Judgement._repr_html_ = judgement_html


def judge_model(
    suite: Suite,
    model: str | Path,
    baseline: str | Path | None = None,
    out: Path | None = None,
    *,
    settings: Settings = DEFAULTS,
    force: bool = False,
) -> Judgement:
    """Measure `model` on the suite and, with a baseline, decide whether it may replace it.

    Both are what `open_subject` opens; `baseline` may also be the report.json of an earlier run that judged it on the
    same suite. With `out` the report is written there, complete or not at all. Bad input is refused before any model is
    asked: raises RecipeError, DataError, ModelError, UsageError or OutputError. Answers and verdicts are cached, also
    when the run is interrupted.
    """
    if out is not None:
        check_target(out, force=force)
    prepared = prepare(suite, settings.judges, compared=baseline is not None)
    check_judges(prepared.judges, settings)
    _check_certificates(prepared)
    reference = None if baseline is None else str(baseline)
    with (
        opened_sides(prepared, str(model), reference, threads=settings.threads) as sides,
        opened_cache(settings) as cache,
    ):
        judgement = _judge(prepared, sides, settings, cache)
    if out is not None:
        write_report(judgement, out, force=force)
    return judgement


def _judge(prepared: PreparedSuite, sides: Sides, settings: Settings, cache: AnswerCache | None) -> Judgement:
    old = None if sides.stored is None else recompute_metrics(prepared, sides.stored)
    if sides.baseline is not None:
        old = _evaluate(prepared, sides.baseline, cache)
    new = _evaluate(prepared, sides.candidate, cache)
    if old is not None:
        check_tokens(prepared, new, old)
    preferences: tuple[Preference, ...] = ()
    validity, costs, notes = Validity(), Costs(), []
    plan, gate = plan_judging(prepared, new, old), prepared.suite.gate
    if prepared.judges:
        jury = Jury(
            prepared.judges,
            [len(plan.requests(judge.repeats)) for judge in prepared.judges],
            () if old is None else old.grades,
            gate.max_unscored,
            cache=cache,
            budget=Budget(settings.max_cost_usd),
            threads=settings.threads,
        )
        if old is not None and plan.baseline is not None:
            old = with_grades(prepared, old, jury.ask(plan.baseline))
        if plan.candidate is not None:
            new = with_grades(prepared, new, jury.ask(plan.candidate))
            validity = check_pointwise(
                new.answers,
                new.grades,
                gate,
                baseline=() if old is None else old.answers,
                baseline_grades=() if old is None else old.grades,
                control=jury.ask(plan.regraded),
            )
        if old is not None and plan.pairs is not None:
            preferences = jury.ask(plan.pairs)
            control = jury.ask(plan.self_compared)
            validity = check_pairwise(new.answers, old.answers, preferences, gate, control=control)
        costs, notes = jury.costs, jury.notes
    for evaluation in (new, old):
        if evaluation is not None:
            forget_answers(prepared, evaluation, cache)
    return Judgement(
        suite=prepared.suite,
        hashes=prepared.hashes,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        items=prepared.items,
        compared=prepared.compared,
        candidate=new,
        baseline=old,
        preferences=preferences,
        verdict=_decide(prepared, new, old, preferences, validity),
        differences=() if old is None else compute_differences(prepared, new, old),
        judges=tuple(judge.name for judge in prepared.judges),
        costs=costs,
        notes=(
            *notes_on(prepared, new, old),
            *validity.notes,
            *notes,
            *notes_on_judges(prepared),
        ),
        details=_details(prepared),
        inconclusive=settings.inconclusive,
    )


def _decide(
    prepared: PreparedSuite,
    new: Evaluation,
    old: Evaluation | None,
    preferences: Sequence[Preference],
    validity: Validity,
) -> Verdict | None:
    """The verdict; None where there is no baseline, and nothing against the judges either."""
    gate, problems = prepared.suite.gate, list(validity.problems)
    if old is None:
        return decide((), gate, problems=problems) if problems else None
    problems += find_silence(new, old, prepared.suite)
    pairings = pair_metrics(prepared, new, old, mean_preferences(preferences))
    compared = {pairing.metric for pairing in pairings}
    lost = [metric for metric in prepared.gated if metric not in compared]
    if lost:
        problems.append(f"Fewer than 2 items have a value of {', '.join(lost)} for both models.")
    remarks = unanswered_remarks(new, old)
    return decide(pairings, gate, same_model=new.is_same_model(old), problems=problems, remarks=remarks)


def _evaluate(prepared: PreparedSuite, subject: Subject, cache: AnswerCache | None) -> Evaluation:
    """Ask and measure a model, and free it: two that are compared are not in memory together."""
    evaluation = evaluate(prepared, subject, cache)
    subject.close()
    return evaluation


def _details(prepared: PreparedSuite) -> dict[str, object]:
    references = [item.references for item in prepared.items]
    computed = [(name, prepared.compared[name].task_metric) for name in prepared.metrics]
    details = {name: metric.all_details(references) for name, metric in computed if metric is not None}
    for name, values in details.items():
        if plugin := METRICS.plugin_of(name):
            values["plugin"] = plugin
    return {name: values for name, values in details.items() if values}


def _check_certificates(prepared: PreparedSuite) -> None:
    if prepared.rubric is not None and prepared.suite.gate.certificate:
        for judge in prepared.judges:
            check_certificate(judge, prepared.rubric, prepared.suite.grading)
