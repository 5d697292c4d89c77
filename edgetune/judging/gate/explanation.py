"""The gate's results in words."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.judging.gate.comparison import ROUNDING, Comparison, Outcome
from edgetune.judging.gate.wording import (
    about,
    difference_text,
    margin_text,
    probability,
    range_text,
    share_text,
    size_text,
)
from edgetune.metrics.units import scale_length


def explain(comparison: Comparison) -> str:
    """One metric's result in two or three sentences: the finding, and the conclusion."""
    if comparison.equal:
        return as_sentence(f"{comparison.title} is equal on every item, and both are the same model")
    return f"{_finding(comparison)} {_EXPLANATIONS[comparison.outcome](comparison)}"


def _finding(comparison: Comparison) -> str:
    change = difference_text(comparison.difference, comparison.unit)
    interval = f"{comparison.interval.confidence * 100:g} % interval {range_text(comparison.interval, comparison.unit)}"
    items = f"{comparison.items:,} items"
    if comparison.gained is not None:
        items = f"{comparison.gained:,} items better, {comparison.lost:,} worse, of {comparison.items:,}"
    clusters = "" if comparison.clusters is None else f" in {comparison.clusters:,} clusters"
    return as_sentence(f"{comparison.title} changed by {change} ({interval}; {items}{clusters})")


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
    lost = comparison.loss > 0
    direction = f"small {_losing(comparison)}" if lost else "gain" if comparison.higher_is_better else "fall"
    return f"{ruled_out} The {direction} is more than chance ({_p(comparison)})."


def _explain_inconclusive(comparison: Comparison) -> str:
    if comparison.loss <= 0 or comparison.loss < comparison.margin - ROUNDING:
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


def summarize(comparisons: Sequence[Comparison], outcome: Outcome) -> str:
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
    """The loss that so few items may not show, where it could be half of the margin or more."""
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


def as_sentence(text: str) -> str:
    """The text with a capital at its beginning and a full stop at its end."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
