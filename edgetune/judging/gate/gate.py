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

from edgetune.judging.gate.comparison import Comparison, Outcome
from edgetune.judging.gate.wording import (
    about,
    difference_text,
    margin_text,
    probability,
    range_text,
    share_text,
    size_text,
)
from edgetune.judging.statistics.evidence import Evidence, weigh
from edgetune.judging.statistics.intervals import Interval
from edgetune.judging.statistics.power import items_to_fail, items_to_pass, reach_in_errors, smallest_visible_loss
from edgetune.judging.statistics.quantity import Pairing
from edgetune.judging.statistics.several import adjust_holm
from edgetune.judging.suites.suite import Gate
from edgetune.metrics.units import scale_length

NO_VERDICT = "Nothing was compared: a verdict needs a baseline, given with --baseline."
"""What is said where there was no baseline; the exit code is 0."""

EXIT_CODES = {Outcome.PASS: 0, Outcome.REGRESSION: 1, Outcome.INCONCLUSIVE: 3, Outcome.JUDGE_INVALID: 4}

_ROUNDING = 1e-12
"""0.3 - 0.1 is not 0.2: a loss of exactly the margin is one of at least the margin."""


@dataclass(frozen=True)
class Verdict:
    """An answer, and all that it rests on. `problems` say why the judge is invalid, each a sentence for people."""

    outcome: Outcome
    comparisons: tuple[Comparison, ...]
    problems: tuple[str, ...]
    same_model: bool
    remarks: tuple[str, ...] = ()
    """Sentences that belong to the verdict whatever it is: what else its reader must know."""

    @property
    def exit_code(self) -> int:
        """0, 1, 3 or 4."""
        return EXIT_CODES[self.outcome]

    @property
    def reason(self) -> str:
        """The verdict explained in a few sentences, for people: what decides it first, and the remarks last."""
        return " ".join([self._explanation, *self.remarks])

    @property
    def _explanation(self) -> str:
        if self.outcome is Outcome.JUDGE_INVALID:
            losses = [explain(one) for one in self.comparisons if one.outcome is Outcome.REGRESSION]
            told = [*map(_sentence, self.problems), "No verdict rests on this."]
            return " ".join([*told, *(["The comparison still found:", *losses] if losses else [])])
        if all(comparison.equal for comparison in self.comparisons):
            return "Candidate and baseline are the same model, and equal on every item."
        decisive_first = sorted(self.comparisons, key=lambda comparison: comparison.outcome is not self.outcome)
        told = [explain(comparison) for comparison in decisive_first]
        return " ".join([_summarize(self.comparisons, self.outcome), *told] if len(told) > 1 else told)


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
    equal by definition, which no number of items could show. `problems` make the judge invalid. `remarks`
    are told with the verdict, and change nothing. Raises ValueError
    without pairings (unless there are problems), and for a pairing of fewer than 2 items or clusters.
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
    if loss > 0 and loss >= pairing.margin - _ROUNDING and adjusted_p < alpha:
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
    """The largest loss that the interval allows."""
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


def explain(comparison: Comparison) -> str:
    """One metric's answer in two or three sentences, for people: what was seen, and what follows."""
    if comparison.equal:
        return _sentence(f"{comparison.title} is equal on every item, and both are the same model")
    return f"{_finding(comparison)} {_EXPLANATIONS[comparison.outcome](comparison)}"


def _finding(comparison: Comparison) -> str:
    change = difference_text(comparison.difference, comparison.unit)
    interval = f"{comparison.interval.confidence * 100:g} % interval {range_text(comparison.interval, comparison.unit)}"
    items = f"{comparison.items:,} items"
    if comparison.gained is not None:
        items = f"{comparison.gained:,} items better, {comparison.lost:,} worse, of {comparison.items:,}"
    clusters = "" if comparison.clusters is None else f" in {comparison.clusters:,} clusters"
    return _sentence(f"{comparison.title} changed by {change} ({interval}; {items}{clusters})")


def _explain_regression(comparison: Comparison) -> str:
    if comparison.margin == 0:
        return f"Chance does not explain the {_losing(comparison)} ({_p(comparison)})."
    return (
        f"The {_losing(comparison)} is at least the margin of {_margin(comparison)}, and chance does not explain it "
        f"({_p(comparison)})."
    )


def _explain_pass(comparison: Comparison) -> str:
    ruled_out = f"{_such_a_loss(comparison)} is ruled out.{_unseen(comparison)}"
    if comparison.adjusted_p >= comparison.alpha:
        return ruled_out
    lost = _loss(comparison.difference, comparison.higher_is_better) > 0
    direction = f"small {_losing(comparison)}" if lost else "gain" if comparison.higher_is_better else "fall"
    return f"{ruled_out} The {direction} is more than chance ({_p(comparison)})."


def _explain_inconclusive(comparison: Comparison) -> str:
    loss = _loss(comparison.difference, comparison.higher_is_better)
    if loss <= 0 or loss < comparison.margin - _ROUNDING:
        finding = f"{_such_a_loss(comparison)} is not ruled out."
    else:
        reaches = f"is at least the margin of {_margin(comparison)}, but it " if comparison.margin > 0 else ""
        finding = f"The {_losing(comparison)} {reaches}may be chance ({_p(comparison)})."
    if comparison.smallest_margin is not None:
        margin = margin_text(comparison.smallest_margin, comparison.unit)
        finding += f" The smallest margin that these items would pass is {margin}.{_unseen(comparison)}"
    visible = size_text(comparison.smallest_visible_loss, comparison.unit)
    power = f"{comparison.items:,} items reliably show only a {_losing(comparison)} of {visible} or more"
    if comparison.items_to_decide is None:
        return f"{finding} {power}; with models this alike, more items would not decide."
    return (
        f"{finding} {power}; if things stay as they are, about {about(comparison.items_to_decide)} items would decide."
    )


_EXPLANATIONS = {
    Outcome.REGRESSION: _explain_regression,
    Outcome.PASS: _explain_pass,
    Outcome.INCONCLUSIVE: _explain_inconclusive,
}


def _summarize(comparisons: Sequence[Comparison], outcome: Outcome) -> str:
    """How many of several metrics decide the whole, and which."""
    if outcome is Outcome.PASS:
        return f"All {len(comparisons)} metrics pass."
    decisive = [comparison.title for comparison in comparisons if comparison.outcome is outcome]
    what = "regressed" if outcome is Outcome.REGRESSION else "inconclusive"
    return f"{len(decisive)} of {len(comparisons)} metrics {what}: {', '.join(decisive)}."


def _losing(comparison: Comparison) -> str:
    return "loss" if comparison.higher_is_better else "rise"


def _such_a_loss(comparison: Comparison) -> str:
    losing = _losing(comparison)
    return f"A {losing} of {_margin(comparison)} or more" if comparison.margin > 0 else f"A {losing}"


def _unseen(comparison: Comparison) -> str:
    """What so few items may not have shown, where it could make up half of the margin or more."""
    share, fall = comparison.unseen_share, scale_length(comparison.unit)
    if share is None or fall is None or share * fall < comparison.margin / 2:
        return ""
    size = f"{fall:g} grades" if comparison.unit == "grade" else size_text(fall, comparison.unit)
    what, count = ("answers", comparison.items) if comparison.clusters is None else ("clusters", comparison.clusters)
    shown_in = "items" if comparison.clusters is None else what
    return f" A fall of {size} in fewer than {share_text(share)} of the {what} would not show in {count:,} {shown_in}."


def _margin(comparison: Comparison) -> str:
    return size_text(comparison.margin, comparison.unit)


def _p(comparison: Comparison) -> str:
    corrected = "" if comparison.adjusted_p == comparison.p_value else " after Holm's correction"
    return f"{probability(comparison.adjusted_p)}{corrected}"


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
