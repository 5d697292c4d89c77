"""Paired statistics, against published figures, scipy and statsmodels, brute force over all outcomes, and what must
hold for any numbers."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import binom, binomtest, norm, permutation_test, ttest_rel
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from edgetune.judging.statistics.accuracy import (
    PairedCounts,
    count_pairs,
    mcnemar_mid_p,
    wilson_interval,
)
from edgetune.judging.statistics.clusters import cluster_sums, drop_rounding, number_clusters
from edgetune.judging.statistics.scores import largest_share, mean_with_error, t_interval, too_few_differ
from edgetune.judging.statistics.several import adjust_holm
from edgetune.judging.statistics.sign_flip import _drawn_p, sign_flip_p

discordant_counts = st.tuples(st.integers(0, 60), st.integers(0, 60))


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


@pytest.mark.parametrize("seed", range(3))
def test_a_mean_difference_has_scipys_t_interval(seed: int) -> None:
    candidate, baseline = np.random.default_rng(seed).normal(size=(2, 30))
    expected = ttest_rel(candidate, baseline).confidence_interval(0.9)
    interval = t_interval(mean_with_error(candidate - baseline), 0.9)
    assert (interval.lower, interval.upper) == pytest.approx((expected.low, expected.high), abs=1e-9)


def unequal_clusters(clusters: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Values that are alike within clusters of 1 to 30 items, and each value's cluster."""
    generator = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(clusters), generator.integers(1, 31, clusters))
    return generator.normal(size=clusters)[numbers] + generator.normal(size=numbers.size), numbers


def test_clusters_give_the_bias_reduced_standard_error_and_degrees_of_the_whole_matrices() -> None:
    # Bell and McCaffrey (2002) as Pustejovsky and Tipton (2018) write it, for a regression on a constant alone.
    values, numbers = unequal_clusters(7)
    items, alike = values.size, (numbers[:, None] == numbers[None, :]).astype(float)
    residuals = np.eye(items) - 1 / items
    rows = []
    for number in range(7):
        inside = numbers == number
        adjusted = np.linalg.inv(np.real(sqrtm(residuals[np.ix_(inside, inside)])))
        rows.append((adjusted @ residuals[inside]).sum(axis=0) / items)
    found = mean_with_error(values, [f"document {number}" for number in numbers])
    assert found.standard_error == pytest.approx(sqrt(float(((np.array(rows) @ values) ** 2).sum())), abs=1e-9)
    covariances = np.array(rows) @ alike @ np.array(rows).T
    assert found.degrees == pytest.approx(np.trace(covariances) ** 2 / np.trace(covariances @ covariances), abs=1e-6)
    assert found.degrees < found.units - 1 == 6


@pytest.mark.parametrize("clusters", [10, 25])
def test_ten_clusters_of_1_to_30_items_rule_out_what_is_true_no_more_often_than_they_say(clusters: int) -> None:
    runs = 1500
    means = (mean_with_error(*named(*unequal_clusters(clusters, seed))) for seed in range(runs))
    too_high = np.mean([t_interval(mean).lower > 0 for mean in means])
    assert too_high < 0.025 + 3 * sqrt(0.025 * 0.975 / runs)


def named(values: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, list[str]]:
    return values, numbers.astype(str).tolist()


def test_equal_differences_have_no_variance_not_even_by_rounding() -> None:
    assert mean_with_error(np.full(49, 0.1 + 0.2)).standard_error == 0


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


@pytest.mark.parametrize("shift", [-0.03, -0.05])
def test_sign_flips_of_thousands_of_numbers_are_approximated_as_well_as_drawn(shift: float) -> None:
    values = np.random.default_rng(4).standard_t(3, 6000) + shift
    drawn = _drawn_p(np.abs(values), abs(float(values.sum())), seed=0)
    assert sign_flip_p(values) == pytest.approx(drawn, abs=0.004)


def test_sign_flips_of_thousands_of_numbers_of_one_sign_are_as_sure_as_can_be() -> None:
    assert 0 < sign_flip_p(np.sqrt(np.arange(1.0, 6002.0))) < 1e-300
    values = np.sqrt(np.arange(1.0, 6003.0))
    assert sign_flip_p(values * np.tile([1, -1], 3001)) > 0.4


def _by_total(sizes: list[float], signs: list[tuple[int, ...]]) -> dict[float, tuple[int, ...]]:
    return {round(float(np.dot(sizes, one)), 6): one for one in signs}


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
