"""Whether verdicts can be trusted. A problem found here makes a judgement JUDGE INVALID, whatever the verdicts say.

Every judge of a panel is checked by itself: a panel hides a failing judge, but does not outvote its bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, pstdev
from typing import TypeVar

import numpy as np
from scipy.stats import binomtest

from edgetune.data.draw import draw
from edgetune.judging.asking.request import NOT_ASKED
from edgetune.judging.gate.wording import commonest
from edgetune.judging.grading.grades import Grade, Preference
from edgetune.judging.grading.length_bias import check_length
from edgetune.judging.grading.summaries import (
    mean_preferences,
    mean_scores,
    order_consistency,
    unscored_share,
)
from edgetune.judging.grading.validity import Validity
from edgetune.judging.statistics.sign_flip import sign_flip_p
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Gate

_Verdict = TypeVar("_Verdict", Grade, Preference)

CONTROL_ALPHA = 0.01
"""The significance level of controls. It is low because a good judge must not fail one of several checks by chance."""

DRIFT_GRADES = 0.2
"""A smaller mean change of grades is no drift worth stopping for, where the suite gives no margin."""

FEWEST_PAIRS = 5
"""With fewer pairs, low order consistency is a note and no problem."""

VARIETY = 20
"""When so many answers or more differ by less than the margin, or all pairs are ties, there is a note: a judge that
sees no differences finds no regression either, and it may as well be right."""

_BLUNT = "Either no answer is better than another, or the judge sees no difference; a calibration shows which."


def control_sample(items: Sequence[Item], answers: Sequence[Answer], count: int) -> tuple[list[Item], list[Answer]]:
    """`count` of the items and their answers for an A/A control, drawn with a seed; all where there are not more."""
    numbers = draw(len(items), count, "control")
    return [items[number] for number in numbers], [answers[number] for number in numbers]


def check_pointwise(
    candidate: Sequence[Answer],
    grades: Sequence[Grade],
    gate: Gate,
    *,
    baseline: Sequence[Answer] = (),
    baseline_grades: Sequence[Grade] = (),
    control: Sequence[Grade] = (),
) -> Validity:
    """Check the judges that graded a candidate and, where there is one, its baseline; in the order of the items.

    `control` holds new grades of answers of the baseline, which must not differ from those in `baseline_grades`.
    """
    found = _check_degenerate(grades, "candidate") + _check_degenerate(baseline_grades, "baseline")
    for judge in _judges(grades):
        ours, theirs, again = (_of(judge, each) for each in (grades, baseline_grades, control))
        found += _check_unscored(judge, [*ours, *theirs, *again], gate)
        found += _check_drift(judge, theirs, again, gate)
        found += _check_variety(judge, [*ours, *theirs], gate)
        found += check_length(judge, candidate, baseline, _score_differences(ours, theirs))
    return found


def check_pairwise(
    candidate: Sequence[Answer],
    baseline: Sequence[Answer],
    preferences: Sequence[Preference],
    gate: Gate,
    *,
    control: Sequence[Preference] = (),
) -> Validity:
    """Check the judges that compared two models' answers, which are in the order of the items.

    `control` holds preferences between answers of the baseline and themselves, where no position may be preferred.
    """
    found = _check_decided(preferences)
    for judge in _judges(preferences):
        ours, again = _of(judge, preferences), _of(judge, control)
        asked = {preference.item: 0.0 for preference in ours if preference.degenerate is None}
        values = {item: value for item, value in mean_preferences(ours).items() if item in asked}
        found += _check_unscored(judge, [*ours, *again], gate)
        found += _check_consistency(judge, ours, gate)
        found += _check_position(judge, again)
        if len(values) >= VARIETY and all(each.winner == "tie" for each in ours if each.degenerate is None):
            found += Validity.note(f"{judge}: all {len(values):,} pairs of different answers are ties. {_BLUNT}")
        found += check_length(judge, candidate, baseline, values)
    return found


def _judges(verdicts: Iterable[Grade] | Iterable[Preference]) -> list[str]:
    return list(dict.fromkeys(verdict.judge for verdict in verdicts))


def _of(judge: str, verdicts: Iterable[_Verdict]) -> list[_Verdict]:
    return [verdict for verdict in verdicts if verdict.judge == judge]


def _check_degenerate(grades: Sequence[Grade], side: str) -> Validity:
    found = {grade.item: grade.degenerate for grade in grades if grade.degenerate is not None}
    if not found:
        return Validity()
    return Validity.note(f"{_answers(len(found))} of the {side} graded 1 without asking: {commonest(found.values())}.")


def _check_decided(preferences: Sequence[Preference]) -> Validity:
    found = {each.item: each.degenerate for each in preferences if each.degenerate is not None}
    if not found:
        return Validity()
    pairs = "1 pair was" if len(found) == 1 else f"{len(found):,} pairs were"
    return Validity.note(f"{pairs} decided without asking: {commonest(found.values())}.")


def _check_unscored(judge: str, verdicts: Sequence[Grade] | Sequence[Preference], gate: Gate) -> Validity:
    unscored = unscored_share(verdicts)
    if not unscored.count or unscored.share is None:
        return Validity()
    problems = [each.problem for each in verdicts if each.problem is not None]
    told = [problem for problem in problems if not problem.startswith(NOT_ASKED)]
    reasons = commonest(told)
    if len(told) < len(problems):
        spared = len(problems) - len(told)
        if len(told) / unscored.of <= gate.max_unscored:
            return Validity.note(f"{judge}: {spared} of {unscored.of} verdicts were {commonest(problems)}.")
        return Validity.problem(
            f"{judge}: {len(told)} of the first {unscored.of - spared} verdicts are unscored: {reasons}. At most "
            f"{gate.max_unscored:.1%} of {unscored.of} may be, so the judge was not asked for the other {spared}."
        )
    text = f"{judge}: {unscored.count} of {unscored.of} verdicts are unscored ({unscored.share:.1%}): {reasons}."
    if unscored.share <= gate.max_unscored:
        return Validity.note(text)
    return Validity.problem(f"{text} At most {gate.max_unscored:.1%} may be.")


def _check_consistency(judge: str, preferences: Sequence[Preference], gate: Gate) -> Validity:
    consistent = order_consistency(preferences)
    if consistent.share is None or consistent.share >= gate.min_consistency:
        return Validity()
    asked = [each for each in preferences if each.degenerate is None and each.winner in ("candidate", "baseline")]
    first = sum(each.order.startswith(str(each.winner)) for each in asked)
    text = (
        f"{judge}: the two orders agree on {consistent.count:,} of {consistent.of:,} pairs ({consistent.share:.0%}; at "
        f"least {gate.min_consistency:.0%} should); it named the first answer {first:,} times and the second "
        f"{len(asked) - first:,} times."
    )
    return Validity.note(text) if consistent.of < FEWEST_PAIRS else Validity.problem(text)


def _check_variety(judge: str, grades: Sequence[Grade], gate: Gate) -> Validity:
    scores = [grade.scores for grade in grades if grade.degenerate is None and grade.scores is not None]
    if len(scores) < VARIETY:
        return Validity()
    spreads = {name: pstdev([each[name] for each in scores]) for name in scores[0]}
    if any(spread >= gate.margin_of(name, DRIFT_GRADES) for name, spread in spreads.items()):
        return Validity()
    return Validity(
        notes=(
            f"{judge}: its grades of {len(scores):,} answers are nearly the same (their standard deviation is at most "
            f"{max(spreads.values()):.2f}). {_BLUNT}",
        )
    )


def _check_drift(judge: str, before: Sequence[Grade], again: Sequence[Grade], gate: Gate) -> Validity:
    """The A/A control of grades: the sign-flip test by criterion, with Bonferroni's correction over the criteria."""
    changes = _changes(before, again)
    problems = []
    for name, values in changes.items():
        change, p_value = fmean(values), sign_flip_p(np.array(values)) * len(changes)
        if p_value < CONTROL_ALPHA and abs(change) >= gate.margin_of(name, DRIFT_GRADES):
            problems.append(
                f"{judge}: A/A control failed. The same {len(values):,} answers were graded again, and {name} changed "
                f"by {change:+.2f} (p = {p_value:.2g}): the judge has changed since it graded the baseline."
            )
    return Validity(tuple(problems))


def _changes(before: Iterable[Grade], again: Iterable[Grade]) -> dict[str, list[float]]:
    """By criterion, new score minus old of every item that both gradings asked the judge for."""
    old, new = (mean_scores(each for each in grades if each.degenerate is None) for grades in (before, again))
    changes: dict[str, list[float]] = {}
    for item in new.keys() & old.keys():
        for name, score in new[item].items():
            changes.setdefault(name, []).append(score - old[item][name])
    return changes


def _check_position(judge: str, control: Sequence[Preference]) -> Validity:
    """The A/A control of preferences: of two equal answers, neither place may be preferred (a sign test by item)."""
    by_item: dict[str, int] = {}
    for each in control:
        if each.degenerate is None and each.winner in ("candidate", "baseline"):
            by_item[each.item] = by_item.get(each.item, 0) + (1 if each.order.startswith(str(each.winner)) else -1)
    first_wins = sum(balance > 0 for balance in by_item.values())
    second_wins = sum(balance < 0 for balance in by_item.values())
    if not first_wins + second_wins or binomtest(first_wins, first_wins + second_wins).pvalue >= CONTROL_ALPHA:
        return Validity()
    return Validity.problem(
        f"{judge}: A/A control failed. Asked to compare answers with themselves, it preferred the first place on "
        f"{first_wins} items and the second on {second_wins}."
    )


def _score_differences(ours: Iterable[Grade], theirs: Iterable[Grade]) -> dict[str, float]:
    """Candidate minus baseline, mean over the criteria, of every item that both were asked and scored on."""
    new, old = (mean_scores(each for each in grades if each.degenerate is None) for grades in (ours, theirs))
    return {item: fmean(new[item].values()) - fmean(old[item].values()) for item in new if item in old}


def _answers(count: int) -> str:
    return "1 answer" if count == 1 else f"{count:,} answers"
