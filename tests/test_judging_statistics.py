"""Paired statistics, against published figures, brute force over all outcomes, and what must hold for any counts."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from edgetune.judging.statistics import (
    PairedCounts,
    bonett_price_interval,
    count_pairs,
    items_to_decide,
    mcnemar_mid_p,
    smallest_visible_loss,
    wilson_interval,
)

paired_counts = st.builds(PairedCounts, *[st.integers(0, 300)] * 4).filter(lambda counts: counts.items >= 2)
discordant_counts = st.tuples(st.integers(0, 60), st.integers(0, 60))


def mirrored(counts: PairedCounts) -> PairedCounts:
    return PairedCounts(counts.both_right, counts.lost, counts.gained, counts.both_wrong)


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    # Fagerland, Lydersen, Laake (2013), table 1: airway hyper-responsiveness, 0.039; the second is the complete
    # response data of Cavo et al. (2012), whose figure is the one in the tests of the R package contingencytables.
    [(1, 7, 0.0390625), (6, 16, 0.034690)],
)
def test_the_mid_p_value_is_the_published_one(gained: int, lost: int, p_value: float) -> None:
    assert mcnemar_mid_p(gained, lost) == pytest.approx(p_value, abs=5e-7)


@pytest.mark.parametrize(("gained", "lost"), list(product(range(8), repeat=2)))
def test_the_mid_p_value_is_that_of_counting_all_splits_of_the_discordant_items(gained: int, lost: int) -> None:
    # Every split at least as uneven as the observed one counts whole, the observed one and its mirror count half.
    m = gained + lost
    splits = {k: Fraction(comb(m, k), 2**m) for k in range(m + 1)}
    uneven = abs(gained - lost)
    expected = sum((p for k, p in splits.items() if abs(2 * k - m) > uneven), Fraction(0))
    expected += sum((p for k, p in splits.items() if abs(2 * k - m) == uneven), Fraction(0)) / 2
    assert mcnemar_mid_p(gained, lost) == pytest.approx(1.0 if m == 0 else float(expected), abs=1e-12)


@given(discordant_counts)
def test_the_mid_p_value_is_the_exact_one_less_the_probability_of_what_was_seen(counts: tuple[int, int]) -> None:
    gained, lost = counts
    if gained != lost:
        exact = binomtest(gained, gained + lost, 0.5).pvalue
        assert mcnemar_mid_p(gained, lost) == pytest.approx(exact - binom.pmf(gained, gained + lost, 0.5), abs=1e-9)


@given(discordant_counts)
def test_the_mid_p_value_is_a_probability_and_does_not_ask_who_won(counts: tuple[int, int]) -> None:
    p_value = mcnemar_mid_p(*counts)
    assert 0 < p_value <= 1
    assert p_value == mcnemar_mid_p(*reversed(counts))


def test_the_difference_interval_is_the_published_one() -> None:
    # Cavo et al. (2012), in the tests of the R package contingencytables: -0.0621 (-0.1195 to -0.0032).
    counts = PairedCounts(both_right=59, gained=6, lost=16, both_wrong=80)
    interval = bonett_price_interval(counts)
    assert counts.difference == pytest.approx(-0.0621, abs=5e-5)
    assert interval.lower == pytest.approx(-0.1195, abs=5e-5)
    assert interval.upper == pytest.approx(-0.0032, abs=5e-5)


@given(paired_counts)
def test_the_difference_interval_contains_the_difference_and_turns_with_the_roles(counts: PairedCounts) -> None:
    interval, turned = bonett_price_interval(counts), bonett_price_interval(mirrored(counts))
    assert -1 <= interval.lower <= counts.difference <= interval.upper <= 1
    assert (turned.lower, turned.upper) == pytest.approx((-interval.upper, -interval.lower))


@given(paired_counts)
def test_more_confidence_needs_a_wider_interval(counts: PairedCounts) -> None:
    narrow, wide = bonett_price_interval(counts, 0.8), bonett_price_interval(counts, 0.99)
    assert wide.lower <= narrow.lower
    assert narrow.upper <= wide.upper


def test_the_difference_interval_covers_the_truth_as_often_as_it_says() -> None:
    items, gain, loss = 40, 0.15, 0.10
    covered = 0.0
    for gained, lost in product(range(items + 1), repeat=2):
        if gained + lost <= items:
            interval = bonett_price_interval(PairedCounts(items - gained - lost, gained, lost, 0))
            chance = binom.pmf(gained, items, gain) * binom.pmf(lost, items - gained, loss / (1 - gain))
            covered += chance * (interval.lower <= gain - loss <= interval.upper)
    assert covered == pytest.approx(0.95, abs=0.015)


def test_an_accuracy_has_wilsons_interval() -> None:
    right, items, z = 81, 263, 1.959963984540054
    centre = (right + z**2 / 2) / (items + z**2)
    reach = z / (items + z**2) * sqrt(right * (items - right) / items + z**2 / 4)
    interval = wilson_interval(right, items)
    assert (interval.lower, interval.upper) == pytest.approx((centre - reach, centre + reach), abs=1e-12)
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3.
    assert (interval.lower, interval.upper) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_pairs_are_counted_by_who_is_right() -> None:
    candidate = [True, True, True, False, False, False]
    baseline = [True, False, False, True, False, False]
    assert count_pairs(candidate, baseline) == PairedCounts(both_right=1, gained=2, lost=1, both_wrong=2)


@pytest.mark.parametrize(("items", "discordance"), [(50, 0.3), (90, 0.05), (200, 0.2), (500, 0.0)])
def test_a_loss_of_the_smallest_visible_size_is_found_about_four_times_in_five(items: int, discordance: float) -> None:
    either = round(items * discordance / 2)
    visible = smallest_visible_loss(PairedCounts(items - 2 * either, either, either, 0), alpha=0.05)
    gain = max(0.0, (discordance - visible) / 2)
    loss = gain + visible
    found = 0.0
    for gained in range(items + 1):
        chance = binom.pmf(gained, items, gain)
        if chance > 1e-6:
            losses = range(items - gained + 1)
            significant = [lost for lost in losses if lost > gained and mcnemar_mid_p(gained, lost) < 0.05]
            found += chance * sum(binom.pmf(significant, items - gained, loss / (1 - gain)))
    assert 0.75 < found < 0.92


def test_more_items_show_smaller_losses_and_smaller_losses_need_more_items() -> None:
    few, many = PairedCounts(80, 6, 8, 6), PairedCounts(800, 60, 80, 60)
    assert smallest_visible_loss(many, 0.05) < smallest_visible_loss(few, 0.05)
    narrow, wide = items_to_decide(few, 0.03, 0.05), items_to_decide(few, 0.05, 0.05)
    assert narrow is not None
    assert wide is not None
    assert narrow > wide > few.items


def test_no_number_of_items_decides_a_difference_of_exactly_nothing_at_margin_zero() -> None:
    assert items_to_decide(PairedCounts(80, 5, 5, 10), margin=0, alpha=0.05) is None
