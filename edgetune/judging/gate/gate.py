"""The gate: from two models' results on the same items to a verdict that a release script can act on.

For each metric: REGRESSION when the candidate's loss is significant (its p-value, after Holm's correction where there
are several metrics, is below alpha) and at least the margin. PASS when a loss of the margin or more is ruled out: the
bound on the side of losses of the two-sided interval of candidate - baseline, with confidence 1 - alpha (95 % by
default), stays within the margin (non-inferiority); a candidate that is no worse, but not shown to be, does not pass.
INCONCLUSIVE: neither; the items are too few for the question.

For the whole: JUDGE INVALID (exit code 4) with any problem of the judge, whatever its verdicts say; else REGRESSION (1)
when any metric is one; else INCONCLUSIVE (3) when any is; else PASS (0).

So of two equal models one is called a regression in at most alpha / 2 of the runs, over all metrics together. And a
candidate that truly lost the margin on any metric passes by luck in about alpha / 2 of them at most, without a
correction: it would have to be lucky on that metric, and being lucky on others as well only makes it rarer (an
intersection-union test; Berger, 1982, Technometrics 24:295-300). That holds for metrics on a scale, whatever the losses
look like: simulated with the rarest and largest ones, at most 3 % where 2.5 % are nominal, from 50 items on
(benchmarks/false_alarms.py). Of metrics without a scale (perplexity) it holds as far as the items show what there is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.judging.gate.comparison import ROUNDING, Comparison, Outcome
from edgetune.judging.gate.explanation import as_sentence, explain, summarize
from edgetune.judging.statistics.evidence import Evidence, weigh
from edgetune.judging.statistics.intervals import Interval
from edgetune.judging.statistics.power import items_to_fail, items_to_pass, reach_in_errors, smallest_visible_loss
from edgetune.judging.statistics.quantity import Pairing
from edgetune.judging.statistics.several import adjust_holm
from edgetune.judging.suites.suite import Gate
from edgetune.metrics.units import scale_length

NO_VERDICT = "Nothing was compared: a verdict needs a baseline, given with --baseline."
"""The text where there was no baseline; the exit code is 0."""

EXIT_CODES = {Outcome.PASS: 0, Outcome.REGRESSION: 1, Outcome.INCONCLUSIVE: 3, Outcome.JUDGE_INVALID: 4}


@dataclass(frozen=True)
class Verdict:
    """The gate's outcome with its reasons. `problems` are sentences that say why the judge is invalid."""

    outcome: Outcome
    comparisons: tuple[Comparison, ...]
    problems: tuple[str, ...]
    same_model: bool
    remarks: tuple[str, ...] = ()
    """Further sentences that belong to the verdict, whatever it is."""

    @property
    def exit_code(self) -> int:
        """0, 1, 3 or 4."""
        return EXIT_CODES[self.outcome]

    @property
    def reason(self) -> str:
        """The verdict explained in a few sentences: what decides it first, and the remarks last."""
        return " ".join([self._explanation, *self.remarks])

    @property
    def _explanation(self) -> str:
        if self.outcome is Outcome.JUDGE_INVALID:
            losses = [explain(one) for one in self.comparisons if one.outcome is Outcome.REGRESSION]
            told = [*map(as_sentence, self.problems), "No verdict rests on this."]
            return " ".join([*told, *(["The comparison still found:", *losses] if losses else [])])
        if all(comparison.equal for comparison in self.comparisons):
            return "Candidate and baseline are the same model, and equal on every item."
        decisive_first = sorted(self.comparisons, key=lambda comparison: comparison.outcome is not self.outcome)
        told = [explain(comparison) for comparison in decisive_first]
        return " ".join([summarize(self.comparisons, self.outcome), *told] if len(told) > 1 else told)


def decide(
    pairings: Sequence[Pairing],
    gate: Gate,
    *,
    same_model: bool = False,
    problems: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> Verdict:
    """Judge a candidate against its baseline by one metric or several, each on the same items for both.

    `same_model` says that both are the same model. Where such a pair is equal on every item, the metric passes: it is
    equal by definition, which no number of items could show. `problems` make the judge invalid. `remarks` are added to
    the verdict, and change nothing. Raises ValueError without pairings (unless there are problems), and for a pairing
    of fewer than 2 items or clusters.
    """
    if not pairings and not problems:
        raise ValueError("a verdict needs at least one metric that both models have")
    weighed = [weigh(pairing, 1 - gate.alpha) for pairing in pairings]
    adjusted = adjust_holm([evidence.p_value for evidence in weighed])
    comparisons = tuple(
        _compare(pairing, evidence, p_value, gate.alpha, len(pairings), same_model)
        for pairing, evidence, p_value in zip(pairings, weighed, adjusted, strict=True)
    )
    outcomes = {comparison.outcome for comparison in comparisons}
    if problems:
        outcome = Outcome.JUDGE_INVALID
    elif Outcome.REGRESSION in outcomes:
        outcome = Outcome.REGRESSION
    else:
        outcome = Outcome.INCONCLUSIVE if Outcome.INCONCLUSIVE in outcomes else Outcome.PASS
    return Verdict(outcome, comparisons, tuple(problems), same_model, tuple(remarks))


def _compare(
    pairing: Pairing, evidence: Evidence, adjusted_p: float, alpha: float, metrics: int, same_model: bool
) -> Comparison:
    """The gate's answer on one metric; `metrics` counts all that are corrected together."""
    loss = _loss(evidence.difference, pairing.higher_is_better)
    worst = _worst_loss(evidence.interval, pairing.higher_is_better)
    equal = same_model and evidence.equal
    if loss > 0 and loss >= pairing.margin - ROUNDING and adjusted_p < alpha:
        outcome = Outcome.REGRESSION
    elif equal or worst < pairing.margin:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.INCONCLUSIVE
    # Holm corrects the most significant of several metrics most; planning goes by that one, and promises no more than
    # every metric keeps.
    planned_alpha = alpha / metrics
    return Comparison(
        metric=pairing.metric,
        title=pairing.title,
        kind=pairing.kind,
        unit=pairing.unit,
        higher_is_better=pairing.higher_is_better,
        outcome=outcome,
        items=pairing.items,
        clusters=None if pairing.clusters is None else evidence.units,
        candidate=evidence.candidate,
        baseline=evidence.baseline,
        difference=evidence.difference,
        interval=evidence.interval,
        p_value=evidence.p_value,
        adjusted_p=adjusted_p,
        test=evidence.test,
        interval_method=evidence.interval_method,
        margin=pairing.margin,
        alpha=alpha,
        smallest_visible_loss=_visible_loss(pairing, evidence, planned_alpha),
        items_to_decide=_decisive_items(pairing, evidence, planned_alpha) if outcome is Outcome.INCONCLUSIVE else None,
        gained=evidence.gained,
        lost=evidence.lost,
        equal=equal,
        smallest_margin=max(0.0, worst),
        unseen_share=_unseen_share(pairing, evidence, alpha),
    )


def _worst_loss(interval: Interval, higher_is_better: bool) -> float:
    return -interval.lower if higher_is_better else interval.upper


def _unseen_share(pairing: Pairing, evidence: Evidence, alpha: float) -> float | None:
    """With this chance of every item, none of `units` items falls in `alpha` of the runs. An accuracy needs no such
    figure: a fall is a loss there, and of one size."""
    if pairing.kind != "score" or scale_length(pairing.unit) is None:
        return None
    return 1 - alpha ** (1 / evidence.units)


def _loss(difference: float, higher_is_better: bool) -> float:
    return -difference if higher_is_better else difference


def _visible_loss(pairing: Pairing, evidence: Evidence, alpha: float) -> float:
    reach = reach_in_errors(alpha, evidence.degrees)
    visible = smallest_visible_loss(evidence.standard_error, evidence.units, reach, evidence.step)
    return min(visible, scale_length(pairing.unit) or math.inf)


def _decisive_items(pairing: Pairing, evidence: Evidence, alpha: float) -> int | None:
    loss = _loss(evidence.difference, pairing.higher_is_better)
    expected = _loss(evidence.expected, pairing.higher_is_better)
    if loss < pairing.margin:
        reach = _worst_loss(evidence.interval, pairing.higher_is_better) - loss
        # Only the test is corrected for several metrics, not the interval.
        alone = 1 - evidence.interval.confidence
        # "If things stay as they are", models that are alike on every item stay so.
        noise = 0.0 if evidence.equal else evidence.expected_error
        return items_to_pass(
            pairing.items,
            evidence.units,
            pairing.margin - expected,
            reach,
            noise,
            alone,
            fall=(scale_length(pairing.unit) or math.inf) - loss,
        )
    return items_to_fail(pairing.items, expected, evidence.expected_error, alpha, step=evidence.step)
