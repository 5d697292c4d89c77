"""The gate's verdicts, case by case, and how often it is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from edgetune.judging.gate.comparison import Outcome
from edgetune.judging.gate.explanation import explain
from edgetune.judging.gate.gate import EXIT_CODES, Verdict, decide
from edgetune.judging.statistics.accuracy import mcnemar_mid_p
from edgetune.judging.statistics.quantity import Pairing
from edgetune.judging.statistics.sign_flip import sign_flip_p
from edgetune.judging.suites.suite import Gate

GATE = Gate(alpha=0.05)


def accuracy(items: int, gained: int, lost: int, margin: float = 0.02) -> Pairing:
    """Items that both get right, but for those that one of them does."""
    candidate, baseline = np.ones(items), np.ones(items)
    baseline[:gained] = 0
    candidate[gained : gained + lost] = 0
    return Pairing("accuracy", "Accuracy", "accuracy", "share", True, margin, items, candidate, baseline)


def score(differences: list[float] | np.ndarray, margin: float = 0.25, title: str = "correctness") -> Pairing:
    baseline = np.full(len(differences), 3.0)
    return Pairing(title, title, "score", "grade", True, margin, len(baseline), baseline + differences, baseline)


def perplexity(change: float, noise: float, items: int = 100, margin: float = 0.02) -> Pairing:
    """A candidate whose items need `change` more nats for each token, give or take `noise`."""
    generator = np.random.default_rng(2)
    tokens = generator.integers(20, 200, items).astype(float)
    nats = tokens * generator.normal(2, 0.3, items)
    worse = nats + tokens * (change + noise * generator.standard_normal(items))
    return Pairing(
        "perplexity",
        "Perplexity",
        "aggregate",
        "log",
        False,
        margin,
        items,
        candidate_aggregate=lambda counts: counts @ worse / (counts @ tokens),
        baseline_aggregate=lambda counts: counts @ nats / (counts @ tokens),
    )


def outcome_of(items: int, gained: int, lost: int, margin: float = 0.02) -> Outcome:
    return decide([accuracy(items, gained, lost, margin)], GATE).outcome


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
    assert decide([score([-0.3, -0.1] * 50, margin=0.2)], GATE).outcome is Outcome.REGRESSION


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([-1.0, 0.0] * 20, Outcome.REGRESSION),
        ([-1.0, -1.0, 1.0, -1.0, -1.0], Outcome.INCONCLUSIVE),  # 0.6 grades, but 5 items are too few for any sign
        ([-0.1] * 100, Outcome.PASS),  # every item lost, but less than the margin
        ([-0.1] * 30, Outcome.INCONCLUSIVE),  # one item in ten may fall to the worst grade, and none be among 30
        ([0.5, -0.5] * 40, Outcome.PASS),
        ([2.0, -2.0] * 10, Outcome.INCONCLUSIVE),
        ([1.0] * 20, Outcome.PASS),
    ],
)
def test_scores_are_judged_by_the_size_and_the_spread_of_their_differences(
    differences: list[float], expected: Outcome
) -> None:
    assert decide([score(differences)], GATE).outcome is expected


@pytest.mark.parametrize(
    ("change", "expected"), [(0.05, Outcome.REGRESSION), (0.0, Outcome.PASS), (0.019, Outcome.INCONCLUSIVE)]
)
def test_a_metric_that_is_better_when_lower_is_judged_the_other_way_round(change: float, expected: Outcome) -> None:
    verdict = decide([perplexity(change, noise=0.02)], GATE)
    assert verdict.outcome is expected
    assert verdict.comparisons[0].difference == pytest.approx(change, abs=0.005)
    mirrored = replace(perplexity(-change, noise=0.02), higher_is_better=True)
    assert decide([mirrored], GATE).outcome is expected


def test_each_verdict_has_its_exit_code() -> None:
    for code, counts in {0: (90, 50, 2), 1: (90, 0, 6), 3: (90, 1, 1)}.items():
        assert decide([accuracy(*counts)], GATE).exit_code == code
    assert decide([accuracy(90, 50, 2)], GATE, problems=["the judge picks at random"]).exit_code == 4
    assert set(EXIT_CODES) == set(Outcome)


def test_the_same_answers_from_another_model_do_not_pass_when_the_items_are_too_few() -> None:
    verdict = decide([accuracy(90, 0, 0)], GATE)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.comparisons[0].p_value == 1
    assert outcome_of(items=1000, gained=0, lost=0) == Outcome.PASS


@pytest.mark.parametrize(("items", "passes"), [(2, False), (50, False), (71, False), (72, True), (100, True)])
def test_equal_grades_from_another_model_pass_once_so_many_items_would_show_the_rarest_collapse(
    items: int, passes: bool
) -> None:
    # Of none in 72 items 4.99 % may fall by 4 grades, which is less than 0.2 grades (Clopper and Pearson).
    assert (binomtest(0, items).proportion_ci(0.95, method="exact").high * 4 < 0.2) is passes
    outcome = decide([score(np.zeros(items), margin=0.2)], GATE).outcome
    assert outcome is (Outcome.PASS if passes else Outcome.INCONCLUSIVE)


@pytest.mark.parametrize("pairing", [accuracy(2, 0, 0), score(np.zeros(2)), perplexity(0, noise=0, items=2)])
def test_the_same_model_with_the_same_answers_passes_with_any_number_of_items(pairing: Pairing) -> None:
    verdict = decide([pairing], GATE, same_model=True)
    assert verdict.outcome is Outcome.PASS
    assert verdict.comparisons[0].equal
    assert "same model" in verdict.reason
    assert decide([pairing], GATE).outcome is Outcome.INCONCLUSIVE


def test_the_same_model_with_other_answers_is_judged_by_its_answers() -> None:
    verdict = decide([accuracy(90, 0, 20)], GATE, same_model=True)
    assert verdict.outcome is Outcome.REGRESSION
    assert "same model" not in verdict.reason


def test_one_metric_that_regresses_is_a_regression_and_every_metric_must_pass() -> None:
    passing, undecided, worse = score(np.zeros(90)), score([2.0, -2.0] * 45), score([-1.0, 0.0] * 45)
    assert decide([passing, passing], GATE).outcome is Outcome.PASS
    assert decide([passing, undecided], GATE).outcome is Outcome.INCONCLUSIVE
    assert decide([passing, worse, undecided], GATE).outcome is Outcome.REGRESSION


def test_several_metrics_are_corrected_together() -> None:
    alone = accuracy(90, 0, 6)  # p = 0.016
    others = [replace(accuracy(90, 1, 1), metric=f"other {number}") for number in range(3)]
    assert decide([alone], GATE).outcome is Outcome.REGRESSION
    verdict = decide([alone, *others], GATE)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.comparisons[0].adjusted_p == pytest.approx(4 * verdict.comparisons[0].p_value)
    assert "after Holm's correction" in explain(verdict.comparisons[0])


def test_a_problem_of_the_judge_leads_and_a_regression_is_still_told() -> None:
    verdict = decide([accuracy(90, 0, 6)], GATE, problems=["8.2 % of the verdicts are unscored"])
    assert verdict.outcome is Outcome.JUDGE_INVALID
    assert verdict.reason.startswith("8.2 % of the verdicts are unscored. No verdict")
    assert "Accuracy changed by −6.7 points" in verdict.reason
    assert "changed" not in decide([accuracy(90, 9, 0)], GATE, problems=["the judge picks at random"]).reason
    assert decide([], GATE, problems=["the judge picks at random"]).reason.startswith("The judge picks at random.")


@pytest.mark.parametrize(
    "pairing",
    [
        accuracy(90, 4, 6),
        accuracy(90, 0, 0),
        score([0.5, -1.0, 0.0] * 20),
        score([0.0] * 20),
        replace(score([3.0, -4.0, 0.0] * 20), unit="points", margin=1.0),
        perplexity(0.019, noise=0.02),
        accuracy(90, 5, 5, margin=0),
    ],
)
def test_an_inconclusive_verdict_names_the_smallest_margin_that_would_pass(pairing: Pairing) -> None:
    comparison = decide([pairing], GATE).comparisons[0]
    told = re.search(
        r"The smallest margin that these items would pass is ([\d.]+) (points?|grades|%)", explain(comparison)
    )
    assert told is not None
    size = float(told[1]) / (100 if pairing.unit in ("share", "log") else 1)
    assert decide([replace(pairing, margin=size)], GATE).outcome is Outcome.PASS
    step = 0.01 if pairing.unit == "grade" else 0.1 if pairing.unit == "points" else 0.001
    assert comparison.smallest_margin == pytest.approx(size, abs=step)
    assert decide([replace(pairing, margin=comparison.smallest_margin)], GATE).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("pairing", "told"),
    [
        (score(np.zeros(50)), "A fall of 4 grades in fewer than 6 % of the answers would not show in 50 items."),
        (score(np.zeros(100), 0.2), "A fall of 4 grades in fewer than 3 % of the answers would not show in 100 items."),
        (
            replace(score(np.zeros(60)), clusters=tuple(str(place // 3) for place in range(60))),
            "A fall of 4 grades in fewer than 14 % of the clusters would not show in 20 clusters.",
        ),
        (
            replace(score([5.0, -5.0] * 100), unit="points", margin=1.0),
            "A fall of 100 points in fewer than 1.5 % of the answers would not show in 200 items.",
        ),
    ],
)
def test_a_verdict_says_what_so_few_items_may_not_show(pairing: Pairing, told: str) -> None:
    # With that share of falls, one set of so many units in twenty holds none of them.
    comparison = decide([pairing], GATE).comparisons[0]
    units = comparison.clusters or comparison.items
    assert binom.pmf(0, units, comparison.unseen_share) == pytest.approx(0.05)
    assert told in explain(comparison)


def test_what_may_not_show_is_left_out_where_it_is_small_beside_the_margin_or_all_that_was_asked() -> None:
    assert "would not show" not in decide([score([0.5, -0.5] * 300)], GATE).reason
    assert "would not show" not in decide([accuracy(50, 1, 1)], GATE).reason
    assert decide([accuracy(50, 1, 1)], GATE).comparisons[0].unseen_share is None


def test_an_inconclusive_verdict_tells_what_could_be_seen_and_how_many_items_would_decide() -> None:
    verdict = decide([accuracy(90, 4, 6)], GATE)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.comparisons[0].items_to_decide is not None
    assert "90 items reliably show only a loss of" in verdict.reason
    assert "items would decide" in verdict.reason


def test_a_verdict_says_the_difference_in_its_unit_with_its_interval() -> None:
    verdict = decide([accuracy(90, 0, 6)], GATE)
    assert verdict.reason.startswith("Accuracy changed by −6.7 points (95 % interval −")
    assert "0 items better, 6 worse, of 90" in verdict.reason
    assert "p = 0.016" in verdict.reason
    grades = decide([score([-1.0, 0.0] * 20)], GATE).reason
    assert grades.startswith("Correctness changed by −0.50 grades (95 % interval −0.81 to −0.10; 40 items).")
    more = decide([perplexity(0.05, noise=0.02)], GATE).reason
    assert more.startswith("Perplexity changed by +5.")
    assert "The rise is at least the margin of 2 %" in more


def test_several_metrics_are_summed_up_before_the_one_that_decides() -> None:
    verdict = decide([score(np.zeros(90), title="style"), score([-1.0, 0.0] * 45)], GATE)
    assert verdict.reason.startswith("1 of 2 metrics regressed: correctness. Correctness changed by")
    assert decide([score(np.zeros(90))] * 2, GATE).reason.startswith("All 2 metrics pass.")


def test_a_margin_of_nothing_is_not_spoken_of() -> None:
    for pairing in (accuracy(90, 0, 6, 0.0), accuracy(90, 5, 5, 0.0), accuracy(90, 0, 4, 0.0), accuracy(90, 9, 0, 0.0)):
        assert "0 points or" not in decide([pairing], GATE).reason
        assert "margin of" not in decide([pairing], GATE).reason


def test_clusters_that_are_alike_say_less_than_as_many_items_alone() -> None:
    differences = np.repeat([-1.0, 0.5, -1.0, -1.0, 0.0, 0.5, -1.0], 10)
    assert decide([score(differences)], GATE).outcome is Outcome.REGRESSION
    clustered = replace(score(differences), clusters=tuple(str(place // 10) for place in range(70)))
    verdict = decide([clustered], GATE)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.comparisons[0].clusters == 7
    assert "70 items in 7 clusters" in verdict.reason


def test_accuracy_in_clusters_of_one_item_is_tested_as_without_clusters() -> None:
    plain = accuracy(90, 3, 12)
    single = replace(plain, clusters=tuple(map(str, range(90))))
    found = [decide([pairing], GATE).comparisons[0] for pairing in (plain, single)]
    assert found[0].p_value == pytest.approx(found[1].p_value, abs=1e-9)
    assert found[0].interval.lower == pytest.approx(found[1].interval.lower, abs=0.003)


@pytest.mark.parametrize("pairing", [accuracy(1, 0, 0), score([0.0]), perplexity(0, 0, items=1)])
def test_fewer_than_two_items_cannot_be_compared(pairing: Pairing) -> None:
    with pytest.raises(ValueError, match="at least 2 items"):
        decide([pairing], GATE)


@pytest.mark.parametrize(
    ("pairing", "complaint"),
    [
        (replace(accuracy(9, 1, 1), clusters=("one",) * 9), "at least 2 clusters"),
        (replace(accuracy(9, 1, 1), candidate=np.full(9, 0.5)), "0 .wrong. or 1"),
        (replace(score([1.0, 2.0]), candidate=np.array([1.0, np.nan])), "not finite"),
        (replace(score([1.0, 2.0]), baseline=np.ones(3)), "2 and 3 values for 2 items"),
        (replace(score([1.0, 2.0]), baseline=None), "needs values by item"),
        (replace(score([1.0, 2.0]), kind="aggregate"), "needs both aggregates"),
        (replace(score([1.0, 2.0]), clusters=("a", "b", "c")), "3 cluster names do not fit 2 items"),
    ],
)
def test_a_pairing_that_cannot_be_compared_is_refused(pairing: Pairing, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        decide([pairing], GATE)


def test_without_any_metric_there_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="at least one metric"):
        decide([], GATE)


accuracies = st.builds(
    lambda same, gained, lost, margin: accuracy(same + gained + lost + 2, gained, lost, margin),
    *[st.integers(0, 200)] * 3,
    st.floats(0, 0.3),
)
scores = st.builds(
    score, st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.0, 0.5, 1.0]), min_size=2, max_size=60), st.floats(0, 1)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(accuracies | scores, min_size=1, max_size=3), st.sampled_from([0.01, 0.05, 0.1]))
def test_a_verdict_is_what_its_comparisons_say_and_undecided_ones_need_more_items(
    pairings: list[Pairing], alpha: float
) -> None:
    verdict: Verdict = decide(pairings, Gate(alpha=alpha))
    outcomes = [comparison.outcome for comparison in verdict.comparisons]
    severity = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.REGRESSION]
    assert verdict.outcome is max(outcomes, key=severity.index)
    assert verdict.reason
    for one in verdict.comparisons:
        assert one.interval.lower <= one.difference <= one.interval.upper
        assert one.adjusted_p >= one.p_value
        if one.outcome is Outcome.REGRESSION:
            assert one.difference < 0
            assert one.interval.lower <= -one.margin
            assert one.adjusted_p < alpha
        if one.outcome is Outcome.PASS:
            assert one.interval.lower > -one.margin
        if one.items_to_decide is not None:
            assert one.outcome is Outcome.INCONCLUSIVE
            assert one.items_to_decide > one.items


@settings(max_examples=40, deadline=None)
@given(accuracies | scores)
def test_a_candidate_that_is_better_on_an_item_is_never_judged_worse_for_a_larger_margin(pairing: Pairing) -> None:
    severity = {Outcome.PASS: 0, Outcome.INCONCLUSIVE: 1, Outcome.REGRESSION: 2}
    strict, mild = (
        severity[decide([replace(pairing, margin=pairing.margin + more)], GATE).outcome] for more in (0, 0.1)
    )
    assert mild <= strict


@cache
def _outcome(items: int, gained: int, lost: int) -> Outcome:
    return outcome_of(items, gained, lost)


def share_of(outcome: Outcome, items: int, gain: float, loss: float) -> float:
    """The exact probability of an outcome when items are independent and a share `gain` is gained, `loss` lost."""
    total = 0.0
    for gained, lost in product(range(items + 1), repeat=2):
        if gained + lost <= items:
            chance = binom.pmf(gained, items, gain) * binom.pmf(lost, items - gained, loss / (1 - gain))
            if chance > 1e-6 and _outcome(items, gained, lost) is outcome:
                total += chance
    return total


@pytest.mark.parametrize("items", [20, 50])
@pytest.mark.parametrize("discordance", [0.05, 0.2, 0.5])
def test_equal_models_are_rarely_called_a_regression(items: int, discordance: float) -> None:
    assert share_of(Outcome.REGRESSION, items, discordance / 2, discordance / 2) < 0.026


@pytest.mark.parametrize("discordance", [0.05, 0.2])
def test_a_candidate_that_lost_the_margin_rarely_passes(discordance: float) -> None:
    items, margin = 100, 0.02
    assert share_of(Outcome.PASS, items, (discordance - margin) / 2, (discordance + margin) / 2) < 0.026


@pytest.mark.parametrize("items", [60, 100, 150, 200, 300, 447])
@pytest.mark.parametrize("margin", [0.02, 0.05])
def test_a_candidate_that_lost_the_margin_and_gained_nothing_rarely_passes(items: int, margin: float) -> None:
    passing = [lost for lost in range(12) if outcome_of(items, 0, lost, margin) is Outcome.PASS]
    assert sum(binom.pmf(passing, items, margin)) < 0.025


@pytest.mark.parametrize("items", [50, 75, 100, 150, 200])
@pytest.mark.parametrize("fall", [4.0, 3.0, 2.0])
def test_a_candidate_whose_rare_collapse_makes_up_the_margin_rarely_passes(items: int, fall: float) -> None:
    margin, passed = 0.2, 0.0
    for fallen in range(items):
        differences = np.repeat([-fall, 0.0], [fallen, items - fallen])
        if decide([score(differences, margin)], GATE).outcome is not Outcome.PASS:
            break
        passed += binom.pmf(fallen, items, margin / fall)
    assert passed < 0.03


@pytest.mark.parametrize("items", [50, 100])
@pytest.mark.parametrize("noisy", [0.3, 0.6])
def test_a_rare_collapse_under_noise_rarely_passes(items: int, noisy: float) -> None:
    generator, runs, passed = np.random.default_rng(5), 300, 0
    for _ in range(runs):
        differences = generator.choice([-1.0, 1.0], items) * (generator.random(items) < noisy)
        differences[generator.random(items) < 0.05] = -4
        passed += decide([score(differences, 0.2)], GATE).outcome is Outcome.PASS
    assert passed / runs < 0.03 + 3 * np.sqrt(0.03 * 0.97 / runs)


@pytest.mark.parametrize(("spread", "wanted"), [(0.5, 0.75), (0.7, 0.6)])
def test_a_hundred_items_let_an_equal_model_pass_more_often_than_not(spread: float, wanted: float) -> None:
    generator = np.random.default_rng(6)
    runs = [np.round(generator.normal(0, spread, 100) * 4) / 4 for _ in range(200)]
    assert np.mean([decide([score(run, 0.2)], GATE).outcome is Outcome.PASS for run in runs]) > wanted


@pytest.mark.parametrize(("items", "discordance"), [(50, 0.3), (90, 0.05), (200, 0.2), (500, 0.0)])
def test_a_loss_of_the_smallest_visible_size_is_found_about_four_times_in_five(items: int, discordance: float) -> None:
    either = round(items * discordance / 2)
    visible = decide([accuracy(items, either, either)], GATE).comparisons[0].smallest_visible_loss
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


def clustered_score(differences: list[float]) -> Pairing:
    return replace(score(differences), clusters=tuple(str(place // 5) for place in range(len(differences))))


@pytest.mark.parametrize("make", [score, clustered_score])
def test_more_items_show_smaller_losses_and_smaller_losses_need_more_items(
    make: Callable[[list[float]], Pairing],
) -> None:
    few, many = make([1.0, -1.0, -0.5, 0.0] * 10), make([1.0, -1.0, -0.5, 0.0] * 100)
    visible = [decide([pairing], GATE).comparisons[0].smallest_visible_loss for pairing in (few, many)]
    assert visible[1] < visible[0]
    needed = [decide([replace(few, margin=margin)], GATE).comparisons[0].items_to_decide for margin in (0.15, 0.2)]
    assert needed[0] > needed[1] > few.items


@pytest.mark.parametrize("items", [10, 40])
def test_a_loss_of_grades_of_the_smallest_visible_size_is_found_about_four_times_in_five(items: int) -> None:
    generator = np.random.default_rng(4)
    spread = np.round(generator.normal(0, 1.2, items) * 3) / 3
    visible = decide([score(spread)], GATE).comparisons[0].smallest_visible_loss
    runs = np.round(generator.normal(0, spread.std(ddof=1), (400, items)) * 30) / 30 - round(visible, 2)
    found = np.mean([sign_flip_p(run) < 0.05 for run in runs])
    assert 0.72 < found < 0.9


def test_no_number_of_items_decides_a_difference_of_exactly_nothing_at_margin_zero() -> None:
    for pairing in (accuracy(90, 5, 5, margin=0), score([1.0, -1.0] * 9, margin=0)):
        comparison = decide([pairing], GATE).comparisons[0]
        assert comparison.outcome is Outcome.INCONCLUSIVE
        assert comparison.items_to_decide is None
        assert "more items would not decide" in explain(comparison)


@pytest.mark.parametrize("items", [2, 20, 150])
def test_models_that_stay_alike_on_every_item_pass_with_the_items_that_are_named(items: int) -> None:
    needed = decide([accuracy(items, 0, 0)], GATE).comparisons[0].items_to_decide
    assert needed == 183
    assert [outcome_of(number, 0, 0) for number in (182, 183)] == [Outcome.INCONCLUSIVE, Outcome.PASS]


@pytest.mark.parametrize("differences", [[0.5, -0.7, 0.0] * 5, [1.0, -1.0, -1.0] * 5, [0.0] * 6])
def test_as_many_items_as_are_said_to_decide_mostly_decide(differences: list[float]) -> None:
    needed = decide([score(differences)], GATE).comparisons[0].items_to_decide
    assert needed is not None
    generator = np.random.default_rng(6)
    runs = [generator.choice(differences, needed) for _ in range(100)]
    decided = [decide([score(run)], GATE).outcome is not Outcome.INCONCLUSIVE for run in runs]
    assert np.mean(decided) > 0.7


def test_as_many_items_as_are_said_to_decide_are_not_far_too_many() -> None:
    generator, share, items = np.random.default_rng(3), 0.05, 300

    def drawn(count: int) -> Pairing:
        changed = generator.random(count) < share
        gained = int((generator.random(count)[changed] < 0.5).sum())
        return accuracy(count, gained, int(changed.sum()) - gained)

    plans = [decide([drawn(items)], GATE).comparisons[0] for _ in range(60)]
    needed = [one.items_to_decide for one in plans if abs(one.difference) < 0.004 and one.items_to_decide]
    passed = [decide([drawn(int(np.median(needed)))], GATE).outcome is Outcome.PASS for _ in range(150)]
    assert 0.68 < np.mean(passed) < 0.9


@pytest.mark.parametrize("spread", [1.0, 1.5])
def test_a_loss_of_half_a_grade_is_found_with_a_hundred_items_four_times_in_five(spread: float) -> None:
    generator = np.random.default_rng(8)
    runs = [np.round(generator.normal(-0.5, spread, 100) * 2) / 2 for _ in range(100)]
    assert sum(decide([score(run)], GATE).outcome is Outcome.REGRESSION for run in runs) >= 80


@pytest.mark.parametrize("items", [20, 50])
def test_two_equal_models_with_noisy_grades_are_rarely_called_a_regression(items: int) -> None:
    generator = np.random.default_rng(9)
    ours, theirs = (np.clip(np.round(generator.normal(3.8, 1, (400, items))), 1, 5) for _ in range(2))
    alarms = sum(decide([score(run)], GATE).outcome is Outcome.REGRESSION for run in ours - theirs)
    # Nominal are 2.5 %; this is three standard errors of 400 runs above.
    assert alarms / 400 < 0.025 + 3 * np.sqrt(0.025 * 0.975 / 400)
