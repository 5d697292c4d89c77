"""Grades and preferences: what is asked, what replies come to, and the means over repeats, orders and judges."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stub_judges import (
    ONE_CRITERION,
    StubJudge,
    always_first,
    answers_to,
    by_quality,
    grading,
    longest_wins,
    questions,
)

from edgetune.errors import RecipeError
from edgetune.judging.asking.request import Failed, JudgeRequest, Reply
from edgetune.judging.grading.grades import Grade, Preference
from edgetune.judging.grading.pairwise import ORDERS, ComparingTask
from edgetune.judging.grading.pointwise import GradingTask
from edgetune.judging.grading.prompt import grade_form
from edgetune.judging.grading.summaries import mean_preferences, mean_scores, order_consistency, unscored_share
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.judge_file import LocalJudge, load_judge, shipped_judges
from edgetune.judging.suites.rubric import SCALE, load_rubric, shipped_rubrics

RUBRIC = load_rubric("answer-quality")
ITEMS = questions(4)
LONG = answers_to(ITEMS, lambda n: f"The long answer is {n}.")
SHORT = answers_to(ITEMS, lambda n: f"It is {n}.")


def replying(*replies: Reply | Failed):
    """A judge that gives these replies, whatever it is asked."""

    def ask(requests: Sequence[JudgeRequest]) -> list[Reply | Failed]:
        assert len(requests) == len(replies)
        return list(replies)

    return ask


@pytest.mark.parametrize("name", shipped_rubrics())
def test_every_shipped_rubric_says_what_each_grade_means_and_how_to_use_it(name: str) -> None:
    rubric = load_rubric(name)
    assert rubric.name == name
    assert rubric.description
    assert shipped_rubrics()[name].read_text().startswith("# edgetune judge ")
    for criterion in rubric.criteria.values():
        assert list(criterion.grades) == list(SCALE)
        assert len(set(criterion.grades.values())) == len(SCALE)


@pytest.mark.parametrize("name", shipped_judges())
def test_every_shipped_judge_loads_and_says_what_it_is(name: str) -> None:
    judge = load_judge(name)
    assert judge.description
    assert shipped_judges()[name].read_text().startswith("# edgetune judge ")


def test_the_shipped_judges_hold_no_key_and_the_small_one_says_that_it_is_for_trying_out() -> None:
    assert load_judge("openai").key == "OPENAI_API_KEY"  # type: ignore[union-attr]
    assert load_judge("openai").price is not None  # type: ignore[union-attr]
    assert load_judge("local-server").key is None  # type: ignore[union-attr]
    smallest = load_judge("smollm2")
    assert isinstance(smallest, LocalJudge)
    assert "does not pass calibration" in smallest.description


def test_a_rubric_without_anchors_is_refused(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ncriteria: {tone: {question: Is it kind?, grades: {1: rude, 5: kind}}}\n")
    with pytest.raises(RecipeError, match="there is none for 2, 3, 4"):
        load_rubric(str(file))


def test_every_answer_is_graded_on_every_criterion() -> None:
    judge = grading(lambda text: 5 if "long" in text else 2, tuple(RUBRIC.criteria))
    grades = GradingTask(ITEMS, LONG, RUBRIC).verdicts("stub", 1, judge)
    assert [grade.item for grade in grades] == [item.id for item in ITEMS]
    assert all(grade.scores == dict.fromkeys(RUBRIC.criteria, 5.0) for grade in grades)
    assert all(grade.reason == "by rule" and not grade.expected and grade.problem is None for grade in grades)
    assert judge.asked[0].form == grade_form(RUBRIC)


def test_an_unreadable_or_failed_verdict_is_unscored_and_never_a_low_score() -> None:
    garbage, failed = Reply("I'd rather not."), Failed("HTTP 500, six times")
    good = Reply('{"reason": "r", "quality": 4}')
    grades = GradingTask(ITEMS[:3], LONG[:3], ONE_CRITERION).verdicts("stub", 1, replying(garbage, good, failed))
    assert [grade.scores for grade in grades] == [None, {"quality": 4.0}, None]
    assert grades[2].problem == "HTTP 500, six times"
    assert mean_scores(grades) == {"q1": {"quality": 4.0}}
    assert unscored_share(grades).share == pytest.approx(2 / 3)
    preferences = ComparingTask(ITEMS[:1], LONG[:1], SHORT[:1], ONE_CRITERION).verdicts(
        "stub", 1, replying(garbage, failed)
    )
    assert [preference.winner for preference in preferences] == [None, None]
    assert mean_preferences(preferences) == {}


def test_token_probabilities_give_the_expected_grade() -> None:
    shares = {"quality": {"3": 0.25, "4": 0.5, "5": 0.25}}
    reply = Reply('{"reason": "r", "quality": 3}', probabilities=shares)
    (grade,) = GradingTask(ITEMS[:1], LONG[:1], ONE_CRITERION).verdicts("stub", 1, replying(reply))
    assert grade.scores == {"quality": pytest.approx(0.25 * 3 + 0.5 * 4 + 0.25 * 5)}
    assert grade.expected


@pytest.mark.parametrize("shares", [{}, {"quality": {}}, {"quality": {"1": 1.0}}, {"other": {"4": 1.0}}])
def test_probabilities_that_do_not_fit_the_verdict_are_not_used(shares: dict[str, dict[str, float]]) -> None:
    reply = Reply('{"reason": "r", "quality": 4}', probabilities=shares)
    (grade,) = GradingTask(ITEMS[:1], LONG[:1], ONE_CRITERION).verdicts("stub", 1, replying(reply))
    assert grade.scores == {"quality": 4.0}
    assert not grade.expected


def test_probabilities_do_not_make_an_unreadable_verdict_a_score() -> None:
    reply = Reply('{"reason": "r", "quality": ', probabilities={"quality": {"5": 1.0}})
    (grade,) = GradingTask(ITEMS[:1], LONG[:1], ONE_CRITERION).verdicts("stub", 1, replying(reply))
    assert grade.scores is None


def test_repeats_are_questions_of_their_own_and_their_mean_counts() -> None:
    judge = StubJudge(lambda judged: {"quality": 2 + judged["identity"]["repeat"]})
    grades = GradingTask(ITEMS[:2], LONG[:2], ONE_CRITERION).verdicts("stub", 3, judge)
    assert [grade.repeat for grade in grades] == [0, 1, 2, 0, 1, 2]
    assert mean_scores(grades) == {"q0": {"quality": 3.0}, "q1": {"quality": 3.0}}
    identities = {json.dumps(request.identity, sort_keys=True) for request in judge.asked}
    assert len(identities) == 6


def test_an_identity_names_all_that_shapes_the_verdict_and_nothing_drawn_by_chance() -> None:
    def identity(items=ITEMS[:1], answers=LONG[:1], rubric=RUBRIC, control=None) -> str:
        (request,) = GradingTask(items, answers, rubric, control=control).requests(1)
        assert request.messages() != request.messages(), "delimiters are drawn anew"
        return json.dumps(request.identity, sort_keys=True)

    other_question = [type(ITEMS[0])("q0", "elsewhere:9", "?", ITEMS[1].messages)]
    with_reference = [type(ITEMS[0])("q0", "f:1", "?", ITEMS[0].messages, references=("0",))]
    renamed = [type(ITEMS[0])("another id", "elsewhere:9", "x", ITEMS[0].messages)]
    same = identity()
    assert identity() == same
    assert identity(renamed, [Answer("another id", text=LONG[0].text)]) == same
    others = {
        identity(other_question),
        identity(with_reference),
        identity(answers=SHORT[:1]),
        identity(rubric=load_rubric("summary-quality")),
        identity(control="A/A"),
    }
    assert same not in others
    assert len(others) == 5


def test_requests_can_be_built_without_asking() -> None:
    judge = grading(lambda text: 3)
    GradingTask(ITEMS, LONG, ONE_CRITERION).verdicts("stub", 2, judge)
    built = GradingTask(ITEMS, LONG, ONE_CRITERION).requests(2)
    assert [request.identity for request in built] == [request.identity for request in judge.asked]
    pairs = longest_wins()
    ComparingTask(ITEMS, LONG, SHORT, ONE_CRITERION).verdicts("stub", 2, pairs)
    built = ComparingTask(ITEMS, LONG, SHORT, ONE_CRITERION).requests(2)
    assert [request.identity for request in built] == [request.identity for request in pairs.asked]
    assert len(built) == 4 * 2 * 2


def test_a_pair_is_asked_in_both_orders_and_the_winner_is_a_model_and_no_place() -> None:
    judge = longest_wins()
    preferences = ComparingTask(ITEMS, LONG, SHORT, ONE_CRITERION).verdicts("stub", 1, judge)
    assert [preference.order for preference in preferences] == list(ORDERS) * 4
    assert {preference.winner for preference in preferences} == {"candidate"}
    assert mean_preferences(preferences) == dict.fromkeys(("q0", "q1", "q2", "q3"), 1.0)
    swapped = ComparingTask(ITEMS, SHORT, LONG, ONE_CRITERION).verdicts("stub", 1, longest_wins())
    assert set(mean_preferences(swapped).values()) == {-1.0}
    asked = [(request.identity["first"], request.identity["second"]) for request in judge.asked[:2]]
    assert asked == [(LONG[0].text, SHORT[0].text), (SHORT[0].text, LONG[0].text)]


def test_disagreement_of_the_orders_is_a_tie() -> None:
    preferences = ComparingTask(ITEMS, LONG, SHORT, ONE_CRITERION).verdicts("stub", 1, always_first())
    assert [preference.winner for preference in preferences] == ["candidate", "baseline"] * 4
    assert set(mean_preferences(preferences).values()) == {0.0}
    consistency = order_consistency(preferences)
    assert (consistency.count, consistency.of) == (0, 4)


def test_probabilities_of_a_preference_are_by_model() -> None:
    text, shares = '{"reason": "r", "winner": "first"}', {"winner": {"first": 0.7, "second": 0.2, "tie": 0.1}}
    ask = replying(Reply(text, shares), Reply(text, shares))
    ours, theirs = ComparingTask(ITEMS[:1], LONG[:1], SHORT[:1], ONE_CRITERION).verdicts("stub", 1, ask)
    assert ours.probabilities == {"candidate": 0.7, "baseline": 0.2, "tie": 0.1}
    assert theirs.probabilities == {"candidate": 0.2, "baseline": 0.7, "tie": 0.1}
    assert (ours.winner, theirs.winner) == ("candidate", "baseline")


def test_degenerate_and_equal_answers_are_decided_without_asking() -> None:
    items = questions(5)
    ours = [
        Answer("q0", text=":"),
        Answer("q1", text="It is 1."),
        Answer("q2", text=""),
        Answer("q3", text="3"),
        Answer("q4"),
    ]
    theirs = answers_to(items, lambda n: ["It is 0.", "Solution", "...", "3 \n", "It is 4."][n])
    judge = by_quality(len)
    preferences = ComparingTask(items, ours, theirs, ONE_CRITERION).verdicts("stub", 1, judge)
    assert not judge.asked
    assert mean_preferences(preferences) == {"q0": -1.0, "q1": 1.0, "q2": 0.0, "q3": 0.0, "q4": -1.0}
    assert all(preference.degenerate for preference in preferences)
    assert order_consistency(preferences).share is None
    assert unscored_share(preferences).share is None
    grades = GradingTask(items[:1], ours[:1], ONE_CRITERION).verdicts("stub", 2, judge)
    assert [grade.scores for grade in grades] == [{"quality": 1.0}] * 2
    assert grades[0].degenerate == "the answer has no letters or digits"


def test_a_label_is_judged_where_there_is_no_text() -> None:
    judge = grading(lambda text: 5 if text == "positive" else 1)
    (grade,) = GradingTask(ITEMS[:1], [Answer("q0", predicted="positive")], ONE_CRITERION).verdicts("stub", 1, judge)
    assert grade.scores == {"quality": 5.0}


def test_answers_of_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="expected the answer to q3, but found that to q0"):
        GradingTask(ITEMS[::-1], LONG, ONE_CRITERION).verdicts("stub", 1, grading(lambda text: 3))


scored = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.none() | st.integers(1, 5)), max_size=30)


@settings(max_examples=100, deadline=None)
@given(scored)
def test_a_mean_score_is_over_each_judges_repeats_first_and_then_over_the_judges(
    rows: list[tuple[int, int, int | None]],
) -> None:
    grades = [
        Grade("i", f"judge {judge}", repeat, None if score is None else {"quality": float(score)})
        for judge, repeat, score in rows
    ]
    means = [
        fmean(scores)
        for judge in range(3)
        if (scores := [score for each, _, score in rows if each == judge and score is not None])
    ]
    expected = {"i": {"quality": pytest.approx(fmean(means))}} if means else {}
    assert mean_scores(grades) == expected


def test_a_preference_is_over_repeats_and_judges_and_an_unscored_order_leaves_its_pair_out() -> None:
    def pair(judge: str, repeat: int, first: str | None, second: str | None) -> list[Preference]:
        problems = [None if winner else "?" for winner in (first, second)]
        return [
            Preference("i", judge, repeat, order, winner, problem=problem)  # type: ignore[arg-type]
            for order, winner, problem in zip(ORDERS, (first, second), problems, strict=True)
        ]

    preferences = [
        *pair("a", 0, "candidate", "candidate"),
        *pair("a", 1, "candidate", "baseline"),
        *pair("a", 2, "candidate", None),
        *pair("b", 0, "baseline", "baseline"),
        *pair("b", 1, "tie", "tie"),
        *pair("b", 2, "tie", "baseline"),
    ]
    assert mean_preferences(preferences) == {"i": pytest.approx(fmean([fmean([1, 0]), fmean([-1, 0, 0])]))}
    assert (order_consistency(preferences).count, order_consistency(preferences).of) == (3, 5)
    assert (unscored_share(preferences).count, unscored_share(preferences).of) == (1, 12)
