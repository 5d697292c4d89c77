"""Agreement of raters, against scikit-learn, statsmodels, scipy and the krippendorff package."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from edgetune.judging.statistics.agreement import (
    measure_accuracy,
    measure_alpha,
    measure_kappa,
    measure_spearman,
)

GRADES = [1, 2, 3, 4, 5]


def two_raters(items: int, seed: int = 0) -> tuple[list[int], list[int]]:
    generator = np.random.default_rng(seed)
    first = generator.integers(1, 6, items)
    second = np.clip(first + generator.integers(-2, 3, items), 1, 5)
    return first.tolist(), second.tolist()


def raters_with_gaps(items: int, seed: int = 0) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(1, 6, items)
    ratings = np.clip(truth + generator.integers(-1, 2, (4, items)), 1, 5).astype(float)
    ratings[generator.random(ratings.shape) < 0.4] = np.nan
    return ratings


@pytest.mark.parametrize("weights", ["equal", "linear", "quadratic"])
@pytest.mark.parametrize("seed", range(3))
def test_kappa_is_that_of_scikit_learn(weights: str, seed: int) -> None:
    first, second = two_raters(60, seed)
    expected = cohen_kappa_score(first, second, labels=GRADES, weights=None if weights == "equal" else weights)
    found = measure_kappa(first, second, GRADES, weights=weights)  # type: ignore[arg-type]
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.items == 60


def test_kappa_is_that_of_statsmodels_and_its_interval_close_to_the_asymptotic_one() -> None:
    first, second = two_raters(300)
    table = np.zeros((5, 5))
    np.add.at(table, (np.array(first) - 1, np.array(second) - 1), 1)
    expected = cohens_kappa(table)
    found = measure_kappa(first, second, GRADES)
    assert found.value == pytest.approx(expected.kappa, abs=1e-9)
    assert found.interval.lower == pytest.approx(expected.kappa_low, abs=0.01)
    assert found.interval.upper == pytest.approx(expected.kappa_upp, abs=0.01)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
@pytest.mark.parametrize("seed", range(3))
def test_alpha_is_that_of_krippendorff_with_ratings_missing(level: str, seed: int) -> None:
    ratings = raters_with_gaps(40, seed)
    expected = krippendorff.alpha(ratings, level_of_measurement=level)
    assert measure_alpha(ratings, level=level).value == pytest.approx(expected, abs=1e-9)  # type: ignore[arg-type]


def test_alpha_is_the_published_one() -> None:
    # Krippendorff (2011), section C: four observers, twelve units; nominal 0.743, ordinal 0.815, interval 0.849.
    gap = np.nan
    ratings = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
            [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap],
        ]
    )
    for level, expected in (("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)):
        found = measure_alpha(ratings, level=level)  # type: ignore[arg-type]
        assert found.value == pytest.approx(expected, abs=5e-4)
        assert found.items == 11


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_alpha_does_not_ask_for_the_order_of_raters_or_for_items_with_a_lone_rating(seed: int) -> None:
    ratings = raters_with_gaps(20, seed)
    lone = np.full((4, 3), np.nan)
    lone[0] = [5, 1, 4]
    turned = np.concatenate([ratings[::-1], lone], axis=1)
    for level in ("nominal", "ordinal", "interval"):
        assert measure_alpha(turned, level=level) == measure_alpha(ratings, level=level)  # type: ignore[arg-type]


@pytest.mark.parametrize("tied", [True, False])
def test_the_rank_correlation_is_scipys(tied: bool) -> None:
    generator = np.random.default_rng(1)
    first = generator.normal(size=80)
    second = first + generator.normal(size=80)
    if tied:
        first, second = np.round(first), np.round(second)
    expected = spearmanr(first, second).statistic
    assert measure_spearman(first.tolist(), second.tolist()).value == pytest.approx(expected, abs=1e-9)


def test_a_resampled_rank_correlation_is_that_of_the_drawn_items() -> None:
    # A cluster of which each item is drawn as often as the cluster: three times the same items change nothing.
    first, second = two_raters(30)
    once, thrice = measure_spearman(first, second), measure_spearman(first * 3, second * 3, clusters=list("abc") * 30)
    assert once.value == pytest.approx(thrice.value, abs=1e-12)


def test_accuracy_has_wilsons_interval() -> None:
    found = measure_accuracy(["1", "2", "tie", "2"], ["1", "1", "tie", "2"], confidence=0.9)
    expected = proportion_confint(3, 4, alpha=0.1, method="wilson")
    assert found.value == 0.75
    assert (found.interval.lower, found.interval.upper) == pytest.approx(expected, abs=1e-9)


def test_an_interval_holds_its_value_and_is_the_same_each_time() -> None:
    first, second = two_raters(50)
    for measure in (
        lambda seed: measure_kappa(first, second, GRADES, weights="quadratic", seed=seed),
        lambda seed: measure_alpha(np.array([first, second], float), level="ordinal", seed=seed),
        lambda seed: measure_spearman(first, second, seed=seed),
    ):
        found = measure(0)
        assert -1 <= found.interval.lower < found.value < found.interval.upper <= 1
        assert found == measure(0)
        assert found != measure(1)


def test_clusters_of_alike_items_widen_the_interval() -> None:
    first, second = two_raters(20)
    clusters = [str(place) for place in range(20)] * 6
    alone = measure_kappa(first * 6, second * 6, GRADES)
    together = measure_kappa(first * 6, second * 6, GRADES, clusters=clusters)
    assert together.value == alone.value
    assert together.interval.upper - together.interval.lower > 2 * (alone.interval.upper - alone.interval.lower)


def test_a_rater_who_always_says_the_same_agrees_no_more_than_chance() -> None:
    first, _ = two_raters(40)
    always = [3] * 40
    assert measure_kappa(first, always, GRADES).value == pytest.approx(0, abs=1e-12)
    assert measure_spearman(first, always).value == 0
    assert measure_alpha(np.array([always, always], float)).value == 0
    assert measure_kappa(always, always, GRADES).value == 0


def test_a_few_items_that_all_agree_do_not_show_that_all_items_do() -> None:
    few = measure_kappa([1, 2, 1, 2], [1, 2, 1, 2], [1, 2])
    many = measure_kappa([1, 2] * 100, [1, 2] * 100, [1, 2])
    assert few.value == many.value == 1
    assert few.interval.lower < 0
    assert 0.95 < many.interval.lower < many.interval.upper == 1


def test_a_rating_outside_the_categories_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the categories: 7"):
        measure_kappa([1, 7], [1, 2], GRADES)


@pytest.mark.parametrize("measure", [lambda a, b: measure_kappa(a, b, GRADES), measure_accuracy, measure_spearman])
def test_lists_of_different_lengths_are_refused(measure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError):  # noqa: PT011 - each says it in its own words
        measure([1, 2, 3], [1, 2])
