"""Judges that cannot be trusted are found out; judges that can be are not accused."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from support.stub_judges import (
    ONE_CRITERION,
    StubJudge,
    always_first,
    answers_to,
    at_random,
    by_quality,
    grading,
    longest_wins,
    noisy_grading,
    questions,
)

from edgetune.judging.asking.request import Reply
from edgetune.judging.grading.checks import Validity, check_pairwise, check_pointwise, control_sample
from edgetune.judging.grading.grades import Ask
from edgetune.judging.grading.pairwise import ComparingTask
from edgetune.judging.grading.pointwise import GradingTask
from edgetune.judging.grading.summaries import mean_preferences
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.suite import Gate

SIZES = (20, 50, 200)
GATE = Gate()


def of_lengths(count: int, seed: int, longer: Callable[[int], bool] = lambda n: n % 2 == 0) -> tuple[list[Answer], ...]:
    """Answers of a candidate and a baseline of random lengths; the candidate's is the longer one where `longer`.

    Each begins with its quality, which has nothing to do with its length.
    """
    generator, items = random.Random(seed), questions(count)

    def write(words: int) -> str:
        return f"{generator.random():.6f} " + " ".join(f"word{generator.randrange(9999)}" for _ in range(words))

    pairs = [(write(generator.randint(5, 20)), write(generator.randint(25, 60))) for _ in range(count)]
    ours = answers_to(items, lambda n: pairs[n][longer(n)])
    return ours, answers_to(items, lambda n: pairs[n][not longer(n)])


def quality(text: str) -> float:
    return float(text.split(maxsplit=1)[0])


def compared(judge: Ask, ours: list[Answer], theirs: list[Answer], control: Ask | None = None) -> Validity:
    items = questions(len(ours))
    preferences = ComparingTask(items, ours, theirs, ONE_CRITERION).verdicts("stub", 1, judge)
    again = ()
    if control is not None:
        some, answers = control_sample(items, theirs, GATE.control)
        again = ComparingTask(some, answers, answers, ONE_CRITERION, control="A/A").verdicts("stub", 1, control)
    return check_pairwise(ours, theirs, preferences, GATE, control=again)


@pytest.mark.parametrize("count", SIZES)
def test_an_always_first_judge_gives_only_ties_and_is_invalid(count: int) -> None:
    ours, theirs = of_lengths(count, 1)
    preferences = ComparingTask(questions(count), ours, theirs, ONE_CRITERION).verdicts("stub", 1, always_first())
    assert set(mean_preferences(preferences).values()) == {0.0}
    found = compared(always_first(), ours, theirs, always_first())
    assert len(found.problems) == 2
    assert f"the two orders agree on 0 of {count} pairs" in found.problems[0]
    assert f"it named the first answer {2 * count} times and the second 0 times" in found.problems[0]
    assert "preferred the first place on 20 items and the second on 0" in found.problems[1]


@pytest.mark.parametrize("count", SIZES)
def test_a_longest_wins_judge_is_caught_by_the_length_check(count: int) -> None:
    found = compared(longest_wins(), *of_lengths(count, 2), longest_wins())
    assert len(found.problems) == 1
    assert "its verdicts follow length" in found.problems[0]


@pytest.mark.parametrize("count", SIZES)
def test_a_judge_that_grades_by_length_is_caught_too(count: int) -> None:
    ours, theirs = of_lengths(count, 3)
    judge = grading(lambda text: min(5, 1 + len(text) // 120))
    items = questions(count)
    graded = [GradingTask(items, each, ONE_CRITERION).verdicts("stub", 1, judge) for each in (ours, theirs)]
    found = check_pointwise(ours, graded[0], GATE, baseline=theirs, baseline_grades=graded[1])
    assert ["its verdicts follow length" in problem for problem in found.problems] == [True]


@pytest.mark.parametrize("count", SIZES)
def test_a_judge_of_quality_is_valid_whatever_the_lengths(count: int) -> None:
    assert compared(by_quality(quality), *of_lengths(count, 4), by_quality(quality)) == Validity()


def test_a_candidate_whose_longer_answers_are_better_is_no_fault_of_the_judge() -> None:
    ours, theirs = of_lengths(60, 5, longer=lambda n: True)
    assert not compared(longest_wins(), ours, theirs).problems
    ours, theirs = of_lengths(60, 5, longer=lambda n: n < 52)  # 8 pairs the other way are too few to tell
    assert not compared(longest_wins(), ours, theirs).problems


def test_a_model_that_wins_everywhere_does_not_win_by_length() -> None:
    for better in ("ours", "theirs"):
        ours, theirs = of_lengths(60, 12)
        marked = {answer.text for answer in (ours if better == "ours" else theirs)}
        assert not compared(by_quality(lambda text, marked=marked: float(text in marked)), ours, theirs).problems


def test_a_leaning_to_length_is_a_note() -> None:
    ours, theirs = of_lengths(100, 6)
    leaning = by_quality(lambda text: quality(text) + len(text) / 400)
    found = compared(leaning, ours, theirs)
    assert not found.problems
    assert "longer answers do better" in found.notes[0]
    found = compared(by_quality(lambda text: -len(text)), ours, theirs)
    assert not found.problems, "of answers that ramble on both sides the shorter may be the better"
    assert "shorter answers do better" in found.notes[0]


def test_a_judge_that_sees_no_differences_is_noted() -> None:
    ours, theirs = of_lengths(30, 11)
    found = compared(StubJudge(lambda judged: {"winner": "tie"}), ours, theirs)
    assert not found.problems
    assert "all 30 pairs of different answers are ties" in found.notes[0]
    grades = GradingTask(questions(30), ours, ONE_CRITERION).verdicts("stub", 1, grading(lambda text: 4))
    assert "grades of 30 answers are nearly the same" in check_pointwise(ours, grades, GATE).notes[0]
    varied = GradingTask(questions(30), ours, ONE_CRITERION).verdicts(
        "stub", 1, grading(lambda text: 3 + len(text) % 2)
    )
    assert not check_pointwise(ours, varied, GATE).notes


@pytest.mark.parametrize("count", SIZES)
def test_a_random_judge_is_inconsistent(count: int) -> None:
    found = compared(at_random(count), *of_lengths(count, 7))
    assert ["the two orders agree" in problem for problem in found.problems] == [True]


def test_a_judge_that_guesses_between_equal_answers_has_no_preference_for_a_place() -> None:
    ours, theirs = of_lengths(40, 8)
    accused = sum(bool(compared(by_quality(quality), ours, theirs, at_random(seed)).problems) for seed in range(40))
    assert accused <= 3


def test_too_few_pairs_to_tell_consistency_are_a_note() -> None:
    found = compared(always_first(), *of_lengths(4, 9))
    assert not found.problems
    assert "0 of 4 pairs" in found.notes[0]


def test_more_unscored_verdicts_than_the_gate_allows_are_a_problem_and_fewer_a_note() -> None:
    items = questions(40)
    answers = answers_to(items, lambda n: f"It is {n}.")
    for bad, expected in ((2, (0, 1)), (3, (1, 0))):
        judge = StubJudge(
            lambda judged, bad=bad: "Hm." if judged["number"] < bad else {"quality": 4 + judged["number"] % 2}
        )
        grades = GradingTask(items, answers, ONE_CRITERION).verdicts("stub", 1, judge)
        found = check_pointwise(answers, grades, GATE)
        assert (len(found.problems), len(found.notes)) == expected
        assert f"stub: {bad} of 40 verdicts are unscored" in (*found.problems, *found.notes)[0]
        assert "holds no verdict on quality" in (*found.problems, *found.notes)[0]


def test_degenerate_answers_do_not_hide_unscored_verdicts() -> None:
    items = questions(40)
    answers = answers_to(items, lambda n: ":" if n < 30 else f"It is {n}.")
    judge = StubJudge(lambda judged: "Hm." if judged["number"] == 0 else {"quality": 4})
    found = check_pointwise(answers, GradingTask(items, answers, ONE_CRITERION).verdicts("stub", 1, judge), GATE)
    assert "1 of 10 verdicts are unscored (10.0%)" in found.problems[0]
    assert "30 answers of the candidate graded 1 without asking" in found.notes[0]


def graded_anew(seed: int, shift: float) -> Validity:
    items = questions(30)
    answers = answers_to(items, lambda n: f"It is {n}, which is worth {1 + n % 5}.")

    def worth(text: str) -> float:
        return float(text[-2])

    before = GradingTask(items, answers, ONE_CRITERION).verdicts("stub", 1, noisy_grading(seed, worth))
    some, theirs = control_sample(items, answers, GATE.control)
    today = noisy_grading(seed, lambda text: worth(text) + shift)
    again = GradingTask(some, theirs, ONE_CRITERION, control="A/A").verdicts("stub", 1, today)
    return check_pointwise(answers, before, GATE, baseline=answers, baseline_grades=before, control=again)


def test_an_a_a_control_of_an_unchanged_judge_passes_in_at_least_95_of_100_seeds() -> None:
    assert sum(not graded_anew(seed, 0.0).problems for seed in range(100)) >= 95


def test_a_judge_that_grew_stricter_since_it_graded_the_baseline_is_invalid() -> None:
    problems = [graded_anew(seed, -1.5).problems for seed in range(20)]
    assert sum(bool(each) for each in problems) >= 18
    assert "A/A control failed" in next(each for each in problems if each)[0]


def test_a_drift_below_the_margin_is_none() -> None:
    items = questions(40)
    answers = answers_to(items, lambda n: f"It is {n}.")
    shares = {"quality": {"4": 0.9, "5": 0.1}}
    before = GradingTask(items, answers, ONE_CRITERION).verdicts("stub", 1, grading(lambda text: 4))
    again = GradingTask(items, answers, ONE_CRITERION, control="A/A").verdicts(
        "stub", 1, lambda requests: [Reply('{"reason": "r", "quality": 4}', shares) for _ in requests]
    )
    for margin, problems in ((None, 0), (0.2, 0), (0.05, 1)):
        found = check_pointwise(
            answers, before, Gate(margin=margin), baseline=answers, baseline_grades=before, control=again
        )
        assert len(found.problems) == problems


def test_a_control_asks_equal_answers_in_both_orders_as_questions_of_their_own() -> None:
    items = questions(30)
    answers = answers_to(items, lambda n: f"It is {n}.")
    some, theirs = control_sample(items, answers, 20)
    assert len(some) == 20
    assert control_sample(items, answers, 20) == (some, theirs)
    assert control_sample(items, answers, 99) == (items, answers)
    judge = at_random(0)
    ComparingTask(some, theirs, theirs, ONE_CRITERION, control="A/A").verdicts("stub", 1, judge)
    assert len({str(request.identity) for request in judge.asked}) == 40


def test_each_judge_of_a_panel_is_checked_by_itself() -> None:
    items = questions(20)
    ours, theirs = of_lengths(20, 10)
    preferences = [
        preference
        for name, judge in (("good", by_quality(quality)), ("bad", always_first()), ("fine", by_quality(quality)))
        for preference in ComparingTask(items, ours, theirs, ONE_CRITERION).verdicts(name, 1, judge)
    ]
    found = check_pairwise(ours, theirs, preferences, GATE)
    assert [problem.partition(":")[0] for problem in found.problems] == ["bad"]
