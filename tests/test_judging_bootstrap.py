"""The paired bootstrap, against scipy's and against theory, and how often its intervals hold."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import ks_2samp, norm
from scipy.stats import t as student

from edgetune.judging.statistics.bootstrap import (
    Bootstrap,
    bca_interval,
    bootstrap_interval,
    bootstrap_p,
    differing_units,
    resample,
)
from edgetune.judging.statistics.evidence import interval_of_aggregates
from edgetune.judging.statistics.intervals import Interval
from edgetune.judging.statistics.quantity import Pairing
from edgetune.judging.statistics.scores import largest_share, mean_with_error
from edgetune.judging.statistics.sums import resample_together
from edgetune.metrics.aggregates import Aggregate, ratio
from edgetune.metrics.registry import METRICS
from edgetune.metrics.samples import Sample, Samples
from edgetune.metrics.units import Unit


def mean_of(values: NDArray[np.float64]) -> Aggregate:
    return lambda counts: counts @ values / counts.sum(axis=1)


def ratio_of(above: NDArray[np.float64], below: NDArray[np.float64]) -> Aggregate:
    return lambda counts: counts @ above / (counts @ below)


def f1_of(gold: NDArray[np.int64], predicted: NDArray[np.int64], labels: int) -> Aggregate:
    true, given = np.eye(labels)[gold], np.eye(labels)[predicted]

    def f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        both = counts @ true + counts @ given
        return np.where(both > 0, 2 * (counts @ (true * given)) / np.where(both > 0, both, 1), 0).mean(axis=1)

    return f1


def skewed(items: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).exponential(size=items) - 0.6


def test_every_resample_draws_as_many_items_as_there_are_and_whole_clusters_of_them() -> None:
    seen: list[NDArray[np.float64]] = []

    def watched(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        seen.append(counts)
        return counts.sum(axis=1)

    resample(watched, 6, ("a", "b", "a", "c", "b", "a"), resamples=500)
    drawn = np.concatenate(seen)
    assert (drawn[:, [0, 2, 5]] == drawn[:, [0]]).all()
    assert (drawn[:, 1] == drawn[:, 4]).all()
    assert (drawn[:, 0] + drawn[:, 1] + drawn[:, 3] == np.r_[3, [2] * 3, [3] * 500]).all()
    assert drawn[4:].mean() == pytest.approx(1, abs=0.05)


def test_the_same_seed_draws_the_same_for_candidate_and_baseline() -> None:
    values = skewed(40)
    difference = resample(mean_of(values + 1), 40).minus(resample(mean_of(values), 40))
    assert difference.resampled == pytest.approx(np.ones(10_000), abs=1e-12)
    again, other = resample(mean_of(values), 40), resample(mean_of(values), 40, seed=1)
    assert (again.resampled == resample(mean_of(values), 40).resampled).all()
    assert (again.resampled != other.resampled).any()


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_bca_interval_is_scipys_at_the_confidence_that_few_items_need(confidence: float) -> None:
    values = skewed(30)
    found = resample(mean_of(values), 30)
    reach = student.ppf((1 + confidence) / 2, 29) * np.sqrt(30 / 29)
    expected = scipy_bootstrap(
        (values,),
        np.mean,
        n_resamples=0,
        bootstrap_result=type("Given", (), {"bootstrap_distribution": found.resampled})(),
        confidence_level=2 * norm.cdf(reach) - 1,
        method="BCa",
    ).confidence_interval
    interval = bca_interval(found, confidence)
    assert (interval.lower, interval.upper) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_bootstrap_of_a_mean_has_the_standard_error_of_theory_with_and_without_clusters() -> None:
    values = skewed(200)
    clusters = [str(place // 4) for place in range(200)]
    for names in (None, clusters):
        found = resample(mean_of(values), 200, names)
        assert found.standard_error == pytest.approx(mean_with_error(values, names).standard_error, rel=0.03)
        assert found.value == pytest.approx(values.mean(), abs=1e-12)


def test_the_influence_of_a_mean_is_each_items_distance_from_it() -> None:
    values = skewed(25)
    assert resample(mean_of(values), 25).influence == pytest.approx(values - values.mean(), abs=1e-9)


@pytest.mark.parametrize("shift", [-0.9, -0.6, -0.45, -0.3, -0.15, 0.0, 0.1])
@pytest.mark.parametrize("flip", [1, -1])
def test_the_p_value_is_below_alpha_just_when_the_interval_leaves_zero_out(shift: float, flip: int) -> None:
    found = resample(mean_of(flip * (skewed(40) + shift)), 40)
    p_value = bootstrap_p(found)
    for alpha in (p_value * 0.97, min(0.999, p_value * 1.03)):
        interval = bootstrap_interval(found, 1 - alpha)
        assert (interval.lower > 0 or interval.upper < 0) == (p_value < alpha)


def interval_between(candidate: Bootstrap, baseline: Bootstrap, unit: Unit) -> Interval:
    items = candidate.units
    pairing = Pairing("m", "m", "aggregate", unit, True, 0.02, items)
    return interval_of_aggregates(pairing, candidate, baseline, candidate.minus(baseline), 0.95)


def test_without_a_difference_there_is_no_evidence_and_the_interval_still_has_a_width() -> None:
    nothing = resample(mean_of(np.zeros(20)), 20)
    assert bootstrap_p(nothing) == 1
    for unit in ("share", "log"):
        interval = interval_between(nothing, nothing, unit)
        assert interval.upper == -interval.lower == pytest.approx(largest_share(0, 20, 0.95))


def test_a_metric_with_ends_has_an_interval_between_them_that_allows_for_losses_that_were_not_seen() -> None:
    gold = np.repeat([0, 1, 2], 7)
    candidate, baseline = (resample(f1_of(gold, given, 3), 21) for given in (np.roll(gold, 7), gold))
    found = interval_between(candidate, baseline, "share")
    assert found.lower == pytest.approx(-1)
    assert -1 < found.upper < 0
    same = interval_between(baseline, baseline, "share")
    assert same.lower == pytest.approx(-largest_share(0, 21, 0.95))


def test_one_right_answer_of_a_rare_label_counts_as_much_unseen_as_seen() -> None:
    # Of 2 items of a label one is wrong: one more would move the macro-F1 by far more than one of 100 items of a mean.
    gold = np.repeat([0, 1], [98, 2])
    given = np.r_[np.zeros(98, dtype=int), 0, 1]
    bootstrap = resample(f1_of(gold, given, 2), 100)
    assert interval_between(bootstrap, bootstrap, "share").lower < -2 * largest_share(0, 100, 0.95)


def test_five_items_that_make_the_whole_difference_are_too_few_and_six_are_not() -> None:
    for differing in (5, 6):
        found = resample(mean_of(np.repeat([-1.0, 0.0], [differing, 94])), 94 + differing)
        assert differing_units(found) == (0, differing)
        assert (bootstrap_p(found) < 0.05) == (differing == 6)


def test_a_metric_that_is_not_a_number_for_some_items_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        resample(mean_of(np.array([1.0, np.nan, 2.0])), 3)


@pytest.mark.parametrize(("items", "clusters", "what"), [(1, None, "items"), (4, ["a"] * 4, "clusters")])
def test_a_bootstrap_needs_two_of_what_it_draws(items: int, clusters: list[str] | None, what: str) -> None:
    with pytest.raises(ValueError, match=f"at least 2 {what}"):
        resample(mean_of(np.ones(items)), items, clusters)


def test_five_hundred_items_are_resampled_in_little_memory() -> None:
    tracemalloc.start()
    resample(mean_of(skewed(500)), 500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


def draw_f1(generator: np.random.Generator, items: int) -> tuple[Aggregate, Aggregate]:
    gold = generator.choice(3, items, p=[0.5, 0.3, 0.2])
    baseline = np.where(generator.random(items) < 0.7, gold, generator.integers(0, 3, items))
    candidate = np.where(
        generator.random(items) < 0.5,
        np.where(generator.random(items) < 0.7, gold, generator.integers(0, 3, items)),
        baseline,
    )
    return f1_of(gold, candidate, 3), f1_of(gold, baseline, 3)


def draw_perplexities(generator: np.random.Generator, items: int) -> tuple[Aggregate, Aggregate]:
    tokens = np.ceil(generator.lognormal(3.5, 0.7, items))
    baseline, candidate = (tokens * (2 + generator.normal(0, 0.2, items)) for _ in range(2))
    return ratio_of(candidate, tokens), ratio_of(baseline, tokens)


def draw_rouge(generator: np.random.Generator, items: int) -> tuple[Aggregate, Aggregate]:
    hard = 60 * generator.beta(1.5, 3, items)
    return tuple(mean_of(np.clip(hard + generator.normal(0, 12, items), 0, 100)) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("draw", [draw_f1, draw_perplexities, draw_rouge])
@pytest.mark.parametrize("items", [20, 60])
def test_of_two_equal_models_the_interval_holds_zero_about_as_often_as_it_says(
    draw: Callable[[np.random.Generator, int], tuple[Aggregate, Aggregate]], items: int
) -> None:
    generator, held, alarms, runs = np.random.default_rng(11), 0, 0, 200
    for _ in range(runs):
        candidate, baseline = (resample(side, items, resamples=400) for side in draw(generator, items))
        difference: Bootstrap = candidate.minus(baseline)
        interval = interval_between(candidate, baseline, "number")
        held += interval.lower <= 0 <= interval.upper
        alarms += bootstrap_p(difference) < 0.05
    # Three standard errors of 200 runs.
    assert held / runs > 0.95 - 3 * np.sqrt(0.05 * 0.95 / runs)
    assert alarms / runs < 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_a_loss_that_is_the_same_on_every_item_is_as_sure_as_so_many_sign_flips() -> None:
    values = np.linspace(1, 2, 30)
    difference = resample(mean_of(values - 0.2), 30).minus(resample(mean_of(values), 30))
    assert differing_units(difference) == (0, 30)
    assert bootstrap_p(difference) == pytest.approx(2.0**-29)
    assert bootstrap_interval(difference).upper == pytest.approx(-0.2)


def label_sides(items: int, labels: int) -> tuple[Aggregate, Aggregate]:
    """Macro-F1 of two models that differ on some items."""
    generator = np.random.default_rng(3)
    names = [f"label {number}" for number in range(labels)]
    gold = generator.integers(0, labels, items)
    sides = []
    for accuracy in (0.85, 0.8):
        guess = np.where(generator.random(items) < accuracy, gold, generator.integers(0, labels + 1, items))
        pairs = zip(gold, guess, strict=True)
        samples = [Sample("", gold=names[true], predicted=names[n] if n < labels else None) for true, n in pairs]
        sides.append(METRICS["macro_f1"].compute(Samples(tuple(samples), tuple(names))).aggregate)
    return sides[0], sides[1]


def mean_sides(items: int) -> tuple[Aggregate, Aggregate]:
    """Means of scores of which hardly two are equal."""
    ones = np.ones(items)
    return ratio(skewed(items, 1), ones), ratio(skewed(items, 2), ones)


@pytest.mark.parametrize("sides", [label_sides(400, 3), label_sides(300, 9), mean_sides(200)], ids=["3", "9", "means"])
def test_resampling_kinds_of_items_is_the_bootstrap_of_the_items(sides: tuple[Aggregate, Aggregate]) -> None:
    items = sides[0].kinds.size  # type: ignore[attr-defined]
    quick = resample_together(sides, items)
    slow = tuple(resample(lambda counts, side=side: side(counts), items, seed=1) for side in sides)  # type: ignore[misc]
    for ours, theirs in zip((*quick, quick[0].minus(quick[1])), (*slow, slow[0].minus(slow[1])), strict=True):
        assert ours.value == pytest.approx(theirs.value, abs=1e-13)
        assert ours.influence == pytest.approx(theirs.influence, abs=1e-10)
        assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.04)
        # 1.95 is Kolmogorov's quantile for one false alarm in a thousand.
        assert ks_2samp(ours.resampled, theirs.resampled).statistic < 1.95 * np.sqrt(2 / 10_000)


def test_whole_clusters_are_drawn_as_before() -> None:
    clusters = [str(number % 37) for number in range(400)]
    for sides in (label_sides(400, 3), mean_sides(400)):
        quick = resample_together(sides, 400, clusters)
        slow = [resample(side, 400, clusters) for side in sides]
        for ours, theirs in zip(quick, slow, strict=True):
            assert ours.resampled == pytest.approx(theirs.resampled, abs=1e-12)
            assert ours.left_out == pytest.approx(theirs.left_out, abs=1e-12)


def test_a_metric_that_is_no_sum_is_resampled_item_by_item() -> None:
    sides = mean_of(skewed(30, 1)), mean_of(skewed(30, 2))
    for ours, side in zip(resample_together(sides, 30), sides, strict=True):
        assert (ours.resampled == resample(side, 30).resampled).all()
    with pytest.raises(ValueError, match="not finite"):
        resample_together([ratio(np.array([1.0, np.nan, 2.0]), np.ones(3))], 3)
    with pytest.raises(ValueError, match="at least 2 clusters"):
        resample_together([ratio(np.arange(3.0), np.ones(3))], 3, ["one"] * 3)


def test_fifty_thousand_items_of_twenty_labels_take_as_much_memory_as_their_kinds() -> None:
    sides = label_sides(50_000, 20)
    tracemalloc.start()
    found = resample_together(sides, 50_000, resamples=300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6
    assert found[0].units == 50_000
