"""The interval of a bounded mean, against Clopper and Pearson's, against drawn Dirichlet weights, and how often it
rules out what is true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

from edgetune.judging.statistics.bounded import bounded_interval


@pytest.mark.parametrize("items", [2, 20, 50, 300])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 1])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_of_zeros_and_ones_it_is_the_exact_interval_of_scipy(items: int, share: float, confidence: float) -> None:
    ones = round(items * share)
    expected = binomtest(ones, items).proportion_ci(confidence, method="exact")
    interval = bounded_interval(np.repeat([1.0, 0.0], [ones, items - ones]), 0, 1, confidence=confidence)
    assert (interval.lower, interval.upper) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("lost", [0, 1, 5])
def test_of_losses_alone_it_ends_where_clopper_and_pearson_do(lost: int) -> None:
    expected = binomtest(lost, 120).proportion_ci(0.95, method="exact")
    interval = bounded_interval(np.repeat([-4.0, 0.0], [lost, 120 - lost]), -4, 4)
    assert interval.lower == pytest.approx(-4 * expected.high, abs=1e-9)


def drawn_bound(
    values: NDArray[np.float64], worst: float, weight: float, numbers: NDArray[np.int64] | None = None
) -> float:
    """The lower bound from 200,000 draws of Dirichlet weights; one more unit at the worst end has the weight."""
    numbers = np.arange(values.size) if numbers is None else numbers
    sizes, sums = np.bincount(numbers), np.bincount(numbers, weights=values)
    shapes, size = np.append(np.ones(sizes.size), weight), (sizes @ sizes) / values.size
    drawn = np.random.default_rng(0).standard_gamma(shapes, (200_000, shapes.size))
    means = drawn @ np.append(sums, size * worst) / (drawn @ np.append(sizes, size))
    return float(np.quantile(means, 0.025))


def noisy(items: int, spread: float) -> NDArray[np.float64]:
    return np.round(np.random.default_rng(2).normal(0, spread, items) * 4) / 4


@pytest.mark.parametrize("values", [noisy(100, 0.7), noisy(40, 1.0), np.repeat([0.5, 0, -1], [9, 40, 7])])
def test_the_bound_is_that_of_drawn_weights_with_half_an_unseen_item(values: NDArray[np.float64]) -> None:
    drawn = drawn_bound(values, -4, 0.5)
    found = bounded_interval(values, -4, 4).lower
    assert found <= drawn + 0.02 * (values.mean() - drawn)
    whole = min(drawn, _of_the_farthest(values))
    assert found == pytest.approx(whole, abs=0.03 * (values.mean() - whole))


def _of_the_farthest(values: NDArray[np.float64]) -> float:
    far = values <= (values.mean() - 4) / 2
    return drawn_bound(np.where(far, values, values[~far].mean()), -4, 1.0)


def test_clusters_are_weighed_whole() -> None:
    generator = np.random.default_rng(6)
    numbers = np.repeat(np.arange(90), generator.integers(1, 6, 90))
    values = np.clip(generator.normal(0, 0.3, 90)[numbers] + generator.normal(0, 0.3, numbers.size), -1, 1)
    drawn = drawn_bound(values, -1, 0.5, numbers)
    found = bounded_interval(values, -1, 1, numbers.astype(str).tolist()).lower
    assert found == pytest.approx(drawn, abs=0.03 * (values.mean() - drawn))
    alone = bounded_interval(values, -1, 1).lower
    assert found < alone


@pytest.mark.parametrize("clusters", [50, 100])
def test_clusters_that_fall_whole_are_rarely_ruled_out_however_unequal_they_are(clusters: int) -> None:
    generator, runs, share, ruled_out = np.random.default_rng(8), 300, 0.1, 0
    for _ in range(runs):
        numbers = np.repeat(np.arange(clusters), np.ceil(generator.lognormal(1, 1.2, clusters)).astype(int))
        values = np.where(generator.random(clusters) < share, -4.0, 0.0)[numbers]
        ruled_out += bounded_interval(values, -4, 4, numbers.astype(str).tolist()).lower > -4 * share
    assert ruled_out / runs < 0.03 + 3 * np.sqrt(0.03 * 0.97 / runs)


def test_clusters_of_one_item_are_items() -> None:
    values = noisy(60, 0.7)
    clustered = bounded_interval(values, -4, 4, [str(place) for place in range(60)])
    plain = bounded_interval(values, -4, 4)
    assert (clustered.lower, clustered.upper) == pytest.approx((plain.lower, plain.upper), abs=1e-5)


@pytest.mark.parametrize(("items", "clusters", "what"), [(1, None, "items"), (3, ["a"] * 3, "clusters")])
def test_it_needs_two_of_what_it_weighs(items: int, clusters: list[str] | None, what: str) -> None:
    with pytest.raises(ValueError, match=f"at least 2 {what}"):
        bounded_interval(np.ones(items), 0, 1, clusters)


graded = st.lists(st.integers(4, 20).map(lambda quarter: quarter / 4), min_size=2, max_size=60)


@settings(deadline=None, max_examples=80)
@given(graded, st.sampled_from([0.5, 0.9, 0.95, 0.999]), st.booleans())
def test_it_holds_the_mean_stays_on_the_scale_and_turns_with_it(
    values: list[float], confidence: float, clustered: bool
) -> None:
    given_values = np.array(values)
    clusters = [str(place // 2) for place in range(len(values))] if clustered and len(values) > 2 else None
    interval = bounded_interval(given_values, 1, 5, clusters, confidence)
    assert 1 <= interval.lower <= given_values.mean() + 1e-12
    assert given_values.mean() - 1e-12 <= interval.upper <= 5
    turned = bounded_interval(6 - given_values, 1, 5, clusters, confidence)
    assert (turned.lower, turned.upper) == pytest.approx((6 - interval.upper, 6 - interval.lower), abs=1e-5)
    wider = bounded_interval(given_values, 1, 5, clusters, (1 + confidence) / 2)
    assert wider.lower <= interval.lower + 1e-5
    assert wider.upper >= interval.upper - 1e-5


@pytest.mark.parametrize("values", [np.full(20, 5.0), np.full(20, 1.0), np.r_[np.full(19, 5.0), 1.0]])
def test_twenty_skewed_grades_have_an_interval_on_the_scale(values: NDArray[np.float64]) -> None:
    interval = bounded_interval(values, 1, 5)
    assert 1 <= interval.lower < interval.upper <= 5
    assert interval.upper - interval.lower > 0.5


@pytest.mark.parametrize("items", [20, 50, 100])
def test_a_skewed_mean_is_covered(items: int) -> None:
    # One grade in twenty is 1, all others are 5: the exact coverage over all numbers of them.
    covered = 0.0
    for ones in range(items + 1):
        interval = bounded_interval(np.repeat([1.0, 5.0], [ones, items - ones]), 1, 5)
        covered += binom.pmf(ones, items, 0.05) * (interval.lower <= 4.8 <= interval.upper)
    assert covered >= 0.95


def test_fifty_thousand_different_values_are_no_burden() -> None:
    values = np.clip(np.random.default_rng(1).normal(60, 20, 50_000), 0, 100)
    interval = bounded_interval(values, 0, 100)
    reach = 1.96 * values.std() / np.sqrt(values.size)
    assert (interval.lower, interval.upper) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.01)
