"""The gate's verdicts, case by case, and how often it is wrong."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from edgetune.judging.gate import Outcome, decide
from edgetune.judging.statistics import PairedCounts
from edgetune.judging.suite import Gate

GATE = Gate(margin=0.02, alpha=0.05)


def outcome_of(items: int, gained: int, lost: int, margin: float = 0.02) -> Outcome:
    return decide(PairedCounts(items - gained - lost, gained, lost, 0), Gate(margin=margin)).outcome


@pytest.mark.parametrize(
    ("items", "gained", "lost", "margin", "expected"),
    [
        (90, 0, 6, 0.02, Outcome.REGRESSION),
        (90, 0, 4, 0.02, Outcome.INCONCLUSIVE),  # 4.4 points, p = 0.0625
        (90, 0, 5, 0.06, Outcome.INCONCLUSIVE),  # significant, but less than the margin
        (5000, 0, 40, 0.02, Outcome.PASS),  # significant, but surely less than the margin
        (90, 10, 10, 0.02, Outcome.INCONCLUSIVE),
        (90, 50, 2, 0.02, Outcome.PASS),
        (90, 5, 0, 0.02, Outcome.PASS),  # the interval's lower bound is +0.2 points
        (2000, 20, 20, 0.02, Outcome.PASS),
        (2, 0, 2, 0.02, Outcome.INCONCLUSIVE),
        (50, 0, 50, 0.0, Outcome.REGRESSION),
        (50, 5, 5, 0.0, Outcome.INCONCLUSIVE),
        (10, 0, 10, 0.99, Outcome.REGRESSION),
    ],
)
def test_the_verdict_follows_significance_and_margin(
    items: int, gained: int, lost: int, margin: float, expected: Outcome
) -> None:
    assert outcome_of(items, gained, lost, margin) == expected


def test_a_loss_of_exactly_the_margin_counts_as_one_of_at_least_the_margin() -> None:
    assert outcome_of(items=350, gained=0, lost=7, margin=0.02) == Outcome.REGRESSION


def test_each_verdict_has_its_exit_code() -> None:
    cases = {0: (90, 50, 2), 1: (90, 0, 6), 3: (90, 1, 1)}
    for code, (items, gained, lost) in cases.items():
        assert decide(PairedCounts(items - gained - lost, gained, lost, 0), GATE).exit_code == code


def test_the_same_answers_from_another_file_do_not_pass_when_the_items_are_too_few() -> None:
    verdict = decide(PairedCounts(60, 0, 0, 30), GATE)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.p_value == 1
    assert outcome_of(items=1000, gained=0, lost=0) == Outcome.PASS


def test_the_same_file_with_the_same_answers_passes_with_any_number_of_items() -> None:
    verdict = decide(PairedCounts(1, 0, 0, 1), GATE, same_model=True)
    assert verdict.outcome is Outcome.PASS
    assert "same file" in verdict.reason


def test_the_same_file_with_other_answers_is_judged_by_its_answers() -> None:
    assert decide(PairedCounts(60, 0, 20, 10), GATE, same_model=True).outcome is Outcome.REGRESSION


def test_an_inconclusive_verdict_tells_what_could_be_seen_and_how_many_items_would_decide() -> None:
    verdict = decide(PairedCounts(70, 4, 6, 10), GATE)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.items_to_decide is not None
    assert verdict.items_to_decide > 90
    assert "90 items reliably show only a loss of" in verdict.reason
    assert "items would decide" in verdict.reason


def test_a_verdict_says_the_difference_in_points_with_its_interval() -> None:
    verdict = decide(PairedCounts(60, 0, 6, 24), GATE)
    assert verdict.reason.startswith("Accuracy changed by −6.7 points (95 % interval −")
    assert "0 items better, 6 worse, of 90" in verdict.reason
    assert "p = 0.016" in verdict.reason


def test_fewer_than_two_items_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="at least 2 items"):
        decide(PairedCounts(1, 0, 0, 0), GATE)


@given(
    st.builds(PairedCounts, *[st.integers(0, 200)] * 4).filter(lambda counts: counts.items >= 2),
    st.floats(0, 0.3),
    st.sampled_from([0.01, 0.05, 0.1]),
)
def test_whatever_is_inconclusive_needs_more_items_than_there_are(
    counts: PairedCounts, margin: float, alpha: float
) -> None:
    verdict = decide(counts, Gate(margin=margin, alpha=alpha))
    assert verdict.reason
    if verdict.outcome is Outcome.REGRESSION:
        assert verdict.difference < 0
        assert verdict.interval.lower <= -margin
    if verdict.items_to_decide is not None:
        assert verdict.items_to_decide > counts.items


def share_of(outcome: Outcome, items: int, gain: float, loss: float) -> float:
    """The exact probability of an outcome when items are independent and a share `gain` is gained, `loss` lost."""
    total = 0.0
    for gained, lost in product(range(items + 1), repeat=2):
        if gained + lost <= items:
            chance = binom.pmf(gained, items, gain) * binom.pmf(lost, items - gained, loss / (1 - gain))
            if chance > 1e-6 and outcome_of(items, gained, lost) is outcome:
                total += chance
    return total


@pytest.mark.parametrize("items", [20, 50, 100])
@pytest.mark.parametrize("discordance", [0.05, 0.2, 0.5])
def test_equal_models_are_rarely_called_a_regression(items: int, discordance: float) -> None:
    assert share_of(Outcome.REGRESSION, items, discordance / 2, discordance / 2) < 0.026


@pytest.mark.parametrize("discordance", [0.05, 0.2])
def test_a_candidate_that_lost_the_margin_rarely_passes(discordance: float) -> None:
    items, margin = 100, 0.02
    assert share_of(Outcome.PASS, items, (discordance - margin) / 2, (discordance + margin) / 2) < 0.026
