"""Paired statistics, against published figures, scipy and statsmodels, brute force over all outcomes, and what must
hold for any numbers."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb, sqrt

import numpy as np
import pytest
import statsmodels.api
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm, permutation_test, ttest_rel
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.sandwich_covariance import cov_cluster

from edgetune.judging.statistics.accuracy import (
    PairedCounts,
    bonett_price_interval,
    clustered_interval,
    count_pairs,
    mcnemar_mid_p,
    wilson_interval,
)
from edgetune.judging.statistics.clusters import cluster_sums, drop_rounding, number_clusters
from edgetune.judging.statistics.scores import (
    difference_interval,
    largest_share,
    measure_mean,
    t_interval,
    too_few_differ,
)
from edgetune.judging.statistics.several import adjust_holm
from edgetune.judging.statistics.sign_flip import sign_flip_p

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


@given(discordant_counts)
def test_mcnemars_p_values_frame_the_exact_one_of_statsmodels(counts: tuple[int, int]) -> None:
    gained, lost = counts
    if gained + lost:
        exact = mcnemar([[3, gained], [lost, 4]], exact=True).pvalue
        assert mcnemar_mid_p(gained, lost) < exact + 1e-12
        signs = np.array([1.0] * gained + [-1.0] * lost)
        assert sign_flip_p(signs) == pytest.approx(exact, abs=1e-9)


@given(discordant_counts)
def test_the_mid_p_value_of_sign_flips_of_single_items_is_mcnemars(counts: tuple[int, int]) -> None:
    signs = np.array([1.0] * counts[0] + [-1.0] * counts[1] + [0.0] * 5)
    assert sign_flip_p(signs, mid=True) == pytest.approx(mcnemar_mid_p(*counts), abs=1e-9)


def test_accuracy_in_clusters_of_one_item_has_the_interval_of_items_but_for_students_quantile() -> None:
    differences = np.repeat([1.0, -1.0, 0.0], [9, 14, 77])
    clustered = clustered_interval(differences, [str(place) for place in range(100)])
    plain = bonett_price_interval(PairedCounts(50, 9, 14, 27))
    wider = student.ppf(0.975, 99) / norm.ppf(0.975) * sqrt(102 / 101)
    assert clustered.lower + clustered.upper == pytest.approx(plain.lower + plain.upper, abs=1e-12)
    assert clustered.upper - clustered.lower == pytest.approx(wider * (plain.upper - plain.lower), abs=1e-12)


def test_accuracy_in_alike_clusters_has_a_wider_interval_than_alone() -> None:
    differences = np.repeat([1.0, 0.0, -1.0, 0.0, 1.0, 0.0, -1.0, -1.0, 0.0, -1.0], 10)
    alike = clustered_interval(differences, [str(place // 10) for place in range(100)])
    mixed = clustered_interval(differences, [str(place % 10) for place in range(100)])
    assert alike.upper - alike.lower > 2 * (mixed.upper - mixed.lower)


@pytest.mark.parametrize("seed", range(3))
def test_a_mean_difference_has_scipys_t_interval(seed: int) -> None:
    candidate, baseline = np.random.default_rng(seed).normal(size=(2, 30))
    expected = ttest_rel(candidate, baseline).confidence_interval(0.9)
    interval = t_interval(measure_mean(candidate - baseline), 0.9)
    assert (interval.lower, interval.upper) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_clusters_give_the_robust_standard_error_of_statsmodels() -> None:
    generator = np.random.default_rng(5)
    clusters = generator.integers(0, 12, 80)
    values = generator.normal(size=12)[clusters] + generator.normal(size=80)
    fit = statsmodels.api.OLS(values, np.ones(80)).fit()
    # statsmodels also corrects for n - k as if the mean were a regression's coefficient; with k = 1 that is no change.
    expected = sqrt(cov_cluster(fit, clusters)[0, 0])
    mean = measure_mean(values, [f"document {number}" for number in clusters])
    assert mean.standard_error == pytest.approx(expected, abs=1e-9)
    assert mean.units == 12


def test_equal_differences_have_no_variance_not_even_by_rounding() -> None:
    assert measure_mean(np.full(49, 0.1 + 0.2)).standard_error == 0


grades = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.0, 0.5, 1.0]), min_size=2, max_size=9)


def test_what_is_zero_but_for_rounding_is_no_difference() -> None:
    sums = cluster_sums(np.array([0.1, 0.2, -0.3, 0.7, -1.0]), number_clusters(["a", "a", "a", "b", "c"], 5))
    assert sums.tolist() == [0, 0.7, -1.0]
    assert drop_rounding(np.array([4.35, 1.0]) - np.array([4.35 + 4e-15, 2.0])).tolist() == [0, -1]


@given(grades)
def test_the_sign_flip_test_is_scipys_exact_permutation_test(differences: list[float]) -> None:
    values = np.array(differences)
    if values.any():
        expected = permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip_p(values) == pytest.approx(min(1.0, expected.pvalue), abs=1e-9)


@given(st.lists(st.floats(-5, 5).map(lambda x: x / 7), min_size=1, max_size=10))
def test_sign_flips_of_any_numbers_are_counted_exactly(differences: list[float]) -> None:
    values = np.array(differences)
    sums = [abs(float(np.dot(signs, values))) for signs in product((-1, 1), repeat=values.size)]
    tie = 1e-9 * float(np.abs(values).sum())
    expected = np.mean([total >= abs(float(values.sum())) - tie for total in sums])
    assert sign_flip_p(values) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("mid", [False, True])
def test_sign_flips_on_a_grid_are_those_of_meeting_in_the_middle(mid: bool) -> None:
    values = np.random.default_rng(1).integers(-40, 30, 22) / 10
    # Of sizes times an irrational number no grid is found.
    assert sign_flip_p(values, mid=mid) == pytest.approx(sign_flip_p(values * np.sqrt(2), mid=mid), abs=1e-9)


def test_sign_flips_of_hundreds_of_grades_are_exact_and_those_of_other_numbers_close_and_repeatable() -> None:
    generator = np.random.default_rng(3)
    values = np.round(generator.normal(-0.1, 1, 300) * 3) / 3
    exact = sign_flip_p(values)
    drawn = sign_flip_p(values * np.sqrt(2))
    assert drawn == pytest.approx(exact, abs=0.004)
    assert drawn == sign_flip_p(values * np.sqrt(2))
    normal = 2 * norm.sf(abs(values.sum()) / sqrt((values**2).sum()))
    assert sign_flip_p(values, mid=True) == pytest.approx(normal, abs=0.003)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=60), st.booleans())
def test_sign_flips_do_not_ask_who_won_or_in_what_unit(differences: list[int], mid: bool) -> None:
    values = np.array(differences, dtype=np.float64)
    p_value = sign_flip_p(values, mid=mid)
    assert 0 < p_value <= 1
    assert p_value == pytest.approx(sign_flip_p(-values, mid=mid), abs=1e-12)
    assert p_value == pytest.approx(sign_flip_p(values[::-1] / 4, mid=mid), abs=1e-12)


@pytest.mark.parametrize("sizes", [[1] * 12, [1, 1, 2, 3, 4, 4, 4, 4, 1, 2], [0.1, 3.7, 2.2, 1.4, 1.4, 0.3, 2.9, 5.0]])
@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_the_sign_flip_test_never_exceeds_its_level_on_differences_that_are_symmetric(
    sizes: list[float], level: float
) -> None:
    signs = list(product((-1, 1), repeat=len(sizes)))
    p_values = {total: sign_flip_p(np.array(sizes) * signs_of) for total, signs_of in _by_total(sizes, signs).items()}
    alarms = [p_values[round(float(np.dot(sizes, one)), 6)] <= level for one in signs]
    assert np.mean(alarms) <= level


def _by_total(sizes: list[float], signs: list[tuple[int, ...]]) -> dict[float, tuple[int, ...]]:
    return {round(float(np.dot(sizes, one)), 6): one for one in signs}


@pytest.mark.parametrize("loss", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("items", [20, 50])
def test_the_interval_of_hardly_any_differences_covers_losses_that_were_not_seen(items: int, loss: float) -> None:
    # A share `loss` of the items loses one grade, the others nothing: the exact coverage over all numbers of losers.
    covered = 0.0
    for losers in range(items + 1):
        differences = np.repeat([-1.0, 0.0], [losers, items - losers])
        interval = difference_interval(differences, step=1.0)
        covered += binom.pmf(losers, items, loss) * (interval.lower <= -loss <= interval.upper)
    assert covered > 0.93


def test_differences_that_are_all_zero_claim_less_the_fewer_they_are() -> None:
    assert difference_interval(np.zeros(2), step=1.0).lower < -0.8
    assert -0.17 < difference_interval(np.zeros(20), step=1.0).lower < -0.16


@pytest.mark.parametrize("seen", [0, 1, 4, 30])
def test_the_largest_share_of_unseen_losses_is_the_exact_bound_of_scipy(seen: int) -> None:
    expected = binomtest(seen, 30).proportion_ci(0.9, method="exact").high
    assert largest_share(seen, 30, 0.9) == pytest.approx(expected, abs=1e-9)


def test_few_differences_are_those_that_no_signs_make_significant() -> None:
    for differing in range(1, 12):
        differences = np.repeat([-1.0, 0.0], [differing, 30])
        assert too_few_differ(differing, 0.05) == (sign_flip_p(differences) >= 0.05)


@pytest.mark.parametrize("p_values", [[0.01], [0.03, 0.01, 0.04], [0.5, 0.5, 0.001, 0.02], [0.9, 0.02, 0.02, 1.0, 0.0]])
def test_holms_correction_is_that_of_statsmodels(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1]
    assert adjust_holm(p_values) == pytest.approx(expected.tolist(), abs=1e-9)


def test_without_a_metric_there_is_nothing_to_correct() -> None:
    assert adjust_holm([]) == ()


@pytest.mark.parametrize("clusters", [8, 25])
def test_in_alike_clusters_the_tests_hold_their_level_and_the_intervals_about_theirs(clusters: int) -> None:
    generator, runs = np.random.default_rng(7), 400
    alarms, held = np.zeros((2, runs)), np.zeros((2, runs))
    for run in range(runs):
        sizes = generator.integers(1, 8, clusters)
        names = [str(number) for number in np.repeat(np.arange(clusters), sizes)]
        numbers = number_clusters(names, len(names))
        leaning = np.repeat(generator.normal(size=clusters), sizes) + generator.normal(size=len(names))
        for kind, differences in enumerate((np.round(leaning, 1), np.sign(np.trunc(leaning)))):
            sums = cluster_sums(differences, numbers)
            alarms[kind, run] = sign_flip_p(sums, mid=kind == 1) < 0.05
            interval = clustered_interval(differences, names) if kind else t_interval(measure_mean(differences, names))
            held[kind, run] = interval.lower <= 0 <= interval.upper
    # Three standard errors of 400 runs.
    assert (alarms.mean(axis=1) < 0.05 + 0.033).all()
    assert (held.mean(axis=1) > 0.95 - 0.033 - 0.01).all()
