"""The gate: from two models' answers on the same items to a verdict that a release script can act on.

REGRESSION (exit code 1): the candidate's loss of accuracy is significant (mid-p value of McNemar's test below alpha)
and at least the margin. PASS (0): a loss of the margin or more is ruled out, because the lower bound of the two-sided
interval of candidate - baseline, with confidence 1 - alpha (95 % by default), lies above -margin; a candidate that is
no worse, but not shown to be, does not pass. INCONCLUSIVE (3): neither; the items are too few for the question.

So a candidate that truly lost the margin passes by luck in at most alpha / 2 of the runs, and of two equal models one
is called a regression in at most alpha / 2 of them (enumerated exactly for 20 to 100 items in the tests).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgetune.judging.statistics import (
    Interval,
    PairedCounts,
    bonett_price_interval,
    items_to_decide,
    mcnemar_mid_p,
    smallest_visible_loss,
)
from edgetune.judging.suite import Gate
from edgetune.judging.wording import about, point_count, points, points_range, probability


class Outcome(StrEnum):
    """The three answers of the gate."""

    PASS = "PASS"
    REGRESSION = "REGRESSION"
    INCONCLUSIVE = "INCONCLUSIVE"


NO_VERDICT = "Nothing was compared: a verdict needs a baseline, given with --baseline."
"""What is said where there was no baseline; the exit code is 0."""

EXIT_CODES = {Outcome.PASS: 0, Outcome.REGRESSION: 1, Outcome.INCONCLUSIVE: 3}


@dataclass(frozen=True)
class Verdict:
    """An answer, and all that it rests on. Differences are shares: 0.02 is 2 points."""

    outcome: Outcome
    counts: PairedCounts
    same_model: bool
    difference: float
    interval: Interval
    p_value: float
    margin: float
    alpha: float
    smallest_visible_loss: float
    items_to_decide: int | None
    """About how many items would do; None when the outcome is decided, or when no number would do."""

    @property
    def exit_code(self) -> int:
        """0, 1 or 3."""
        return EXIT_CODES[self.outcome]

    @property
    def reason(self) -> str:
        """The verdict explained in a few sentences, for people."""
        if self.outcome is Outcome.PASS and self.same_model:
            return "Candidate and baseline are the same file and are right and wrong on the same items."
        change = (
            f"Accuracy changed by {points(self.difference)} points ({self.interval.confidence * 100:g} % interval "
            f"{points_range(self.interval)}; {self.counts.gained} items better, {self.counts.lost} worse, of "
            f"{self.counts.items})."
        )
        return f"{change} {_EXPLANATIONS[self.outcome](self)}"


def decide(counts: PairedCounts, gate: Gate, *, same_model: bool = False) -> Verdict:
    """Judge a candidate against its baseline by their accuracy on the same items.

    `same_model` says that both are the same file. Without a discordant item such a pair passes: it is equal by
    definition, which no number of items could show. Raises ValueError for fewer than 2 items.
    """
    if counts.items < 2:
        raise ValueError("a comparison needs at least 2 items")
    interval = bonett_price_interval(counts, confidence=1 - gate.alpha)
    p_value = mcnemar_mid_p(counts.gained, counts.lost)
    equal = same_model and counts.gained == counts.lost == 0
    if counts.difference < 0 and counts.difference <= -gate.margin and p_value < gate.alpha:
        outcome = Outcome.REGRESSION
    elif equal or interval.lower > -gate.margin:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.INCONCLUSIVE
    undecided = outcome is Outcome.INCONCLUSIVE
    return Verdict(
        outcome=outcome,
        counts=counts,
        same_model=equal,
        difference=counts.difference,
        interval=interval,
        p_value=p_value,
        margin=gate.margin,
        alpha=gate.alpha,
        smallest_visible_loss=smallest_visible_loss(counts, gate.alpha),
        items_to_decide=items_to_decide(counts, gate.margin, gate.alpha) if undecided else None,
    )


def _explain_regression(verdict: Verdict) -> str:
    return (
        f"The loss is at least the margin of {point_count(verdict.margin)}, and chance does not explain it "
        f"({probability(verdict.p_value)})."
    )


def _explain_pass(verdict: Verdict) -> str:
    ruled_out = f"A loss of {point_count(verdict.margin)} or more is ruled out."
    if verdict.p_value >= verdict.alpha:
        return ruled_out
    direction = "gain" if verdict.difference > 0 else "small loss"
    return f"{ruled_out} The {direction} is more than chance ({probability(verdict.p_value)})."


def _explain_inconclusive(verdict: Verdict) -> str:
    margin = point_count(verdict.margin)
    if verdict.difference >= 0 or verdict.difference > -verdict.margin:
        finding = f"A loss of {margin} or more is not ruled out."
    else:
        finding = f"The loss is at least the margin of {margin}, but it may be chance ({probability(verdict.p_value)})."
    visible = point_count(verdict.smallest_visible_loss)
    power = f"{verdict.counts.items} items reliably show only a loss of {visible} or more"
    if verdict.items_to_decide is None:
        return f"{finding} {power}; with models this alike, more items would not decide."
    return f"{finding} {power}; if things stay as they are, about {about(verdict.items_to_decide)} items would decide."


_EXPLANATIONS = {
    Outcome.REGRESSION: _explain_regression,
    Outcome.PASS: _explain_pass,
    Outcome.INCONCLUSIVE: _explain_inconclusive,
}
