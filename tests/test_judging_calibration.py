"""Judges against people: published data sets are read, bad judges fail for the right reason, and certificates hold."""

from __future__ import annotations

import io
import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
from rich.console import Console
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score
from support.stub_judges import (
    ONE_CRITERION,
    StubJudge,
    always_first,
    at_random,
    grading,
    longest_wins,
    noisy_grading,
    shortest_wins,
)

from edgetune.errors import DataError, EdgetuneError, OutputError, UsageError
from edgetune.judging.calibration.bars import Bars
from edgetune.judging.calibration.calibrate import Calibration, calibrate, calibration_requests
from edgetune.judging.calibration.certificate import (
    certificate_document,
    check_certificate,
    read_certificate,
    write_certificate,
)
from edgetune.judging.calibration.figures_table import render_calibration
from edgetune.judging.calibration.gold import GoldSet
from edgetune.judging.calibration.length_preference import measure_length_preference, measure_length_taste
from edgetune.judging.calibration.read import read_gold
from edgetune.judging.grading.grades import Ask
from edgetune.judging.statistics.agreement import Agreement
from edgetune.judging.suites.judge_file import EndpointJudge
from edgetune.judging.suites.rubric import load_rubric

JUDGE = EndpointJudge(name="stub", model="stub", key=None)
PLACES = {1.0: "first", -1.0: "second", 0.0: "tie"}

SHAPES: dict[str, dict[str, Any]] = {
    "LLMBar": {"input": "2 + 2?", "output_1": "4", "output_2": "22", "label": 1},
    "PandaLM": {
        "instruction": "2 + 2?",
        "input": "",
        "response1": 4,
        "response2": "22",
        "annotator1": 1,
        "annotator2": 1,
        "annotator3": 0,
    },
    "RewardBench": {"prompt": "2 + 2?", "chosen": "4", "rejected": "22"},
    "MT-bench": {
        "conversation_a": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}],
        "conversation_b": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "22"}],
        "winner": "model_a",
    },
    "pairs": {"prompt": "2 + 2?", "a": "4", "b": "22", "label": "a"},
    "grades": {"prompt": "2 + 2?", "answer": "4", "score": 5, "score_2": "4", "score_3": None},
}


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def votes(folder: Path, count: int = 100, seed: int = 0) -> tuple[GoldSet, ...]:
    """Pairs of which people prefer the one that is marked good, whatever its length; one in ten is a tie."""
    generator, rows = random.Random(seed), []
    for number in range(count):
        texts = [f"good answer {number}", f"poor answer {number}"]
        long = generator.randrange(2)
        texts[long] += " and so on" * generator.randint(5, 20)
        label = "tie" if generator.random() < 0.1 else "a"
        if generator.random() < 0.5:
            texts, label = texts[::-1], {"a": "b", "tie": "tie"}[label]
        rows.append({"prompt": f"What is {number}?", "a": texts[0], "b": texts[1], "label": label})
    return read_gold(write_rows(folder / "votes.jsonl", rows))


def good_judge(error: float, seed: int = 0) -> StubJudge:
    """Prefers what is marked good; in a share of its verdicts it says anything."""
    generator = random.Random(seed)

    def rule(judged: dict[str, Any]) -> dict[str, str]:
        if generator.random() < error:
            return {"winner": generator.choice(("first", "second", "tie"))}
        return {"winner": "first" if judged["first answer"].startswith("good") else "second"}

    return StubJudge(rule)


def calibrated(sets: tuple[GoldSet, ...], ask: Ask, **options: Any) -> Calibration:
    return calibrate(JUDGE, sets, ONE_CRITERION, ask, created="2026-01-01T00:00:00Z", **options)


def rendered(calibration: Calibration) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render_calibration(calibration))
    return console.export_text()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shape_of_a_data_set_shows_in_its_columns(tmp_path: Path, shape: str) -> None:
    (gold,) = read_gold(write_rows(tmp_path / "votes.jsonl", [SHAPES[shape]]))
    assert gold.format == shape
    (item,) = gold.items
    assert item.item.messages[0].content == "2 + 2?"
    assert "4" in item.answers
    if gold.kind == "pairs":
        assert item.gold is not None
        better = item.answers[0] if item.gold > 0 else item.answers[1]
        assert (better, sorted(item.answers)) == ("4", ["22", "4"])
    else:
        assert (item.votes, item.gold) == ((5.0, 4.0), 4.5)


def test_published_data_is_recognized_and_counted(shared_data: Path) -> None:
    mtbench, natural = read_gold(shared_data / "llmbar")
    assert [(each.name, each.format, len(each.items)) for each in (mtbench, natural)] == [
        ("mtbench_human.json", "LLMBar", 200),
        ("natural.json", "LLMBar", 100),
    ]
    rows = json.loads((shared_data / "llmbar" / "natural.json").read_text())
    assert [item.gold for item in natural.items] == [{1: 1.0, 2: -1.0}[row["label"]] for row in rows]
    (pandalm,) = read_gold(shared_data / "pandalm" / "testset-v1.json")
    rows = json.loads((shared_data / "pandalm" / "testset-v1.json").read_text())
    assert (pandalm.format, len(pandalm.items) + pandalm.left_out) == ("PandaLM", len(rows))
    majorities = Counter()
    for row in rows:
        vote, count = Counter(row[f"annotator{n}"] for n in (1, 2, 3)).most_common(1)[0]
        majorities[vote if count > 1 else None] += 1
    counted = Counter(item.gold for item in pandalm.items)
    assert counted == {1.0: majorities[1], -1.0: majorities[2], 0.0: majorities[0]}
    assert pandalm.left_out == majorities[None]


@pytest.mark.parametrize(
    ("judge", "complaint"),
    [
        (at_random(0), "kappa"),
        (longest_wins(), "It prefers longer answers"),
        (shortest_wins(), "It prefers shorter answers"),
        (always_first(), "depends on the order"),
    ],
    ids=["random", "longest wins", "shortest wins", "always first"],
)
def test_bad_judges_fail_on_published_data(shared_data: Path, judge: StubJudge, complaint: str) -> None:
    calibration = calibrated(read_gold(shared_data / "llmbar" / "natural.json"), judge)
    assert any(complaint in failure for failure in calibration.failures)


def test_votes_without_a_majority_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{**SHAPES["PandaLM"], "annotator2": second, "annotator3": third} for second, third in ((1, 2), (2, 0))]
    (gold,) = read_gold(write_rows(tmp_path / "votes.jsonl", rows))
    assert (len(gold.items), gold.left_out) == (1, 1)


def test_the_chosen_answer_comes_first_in_about_half_of_the_pairs(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(200)]
    (gold,) = read_gold(write_rows(tmp_path / "votes.jsonl", rows))
    assert 70 <= sum(item.gold == 1 for item in gold.items) <= 130
    assert all(item.answers[item.gold == -1].startswith("yes") for item in gold.items)


def test_votes_on_the_same_two_conversations_are_one_item(tmp_path: Path) -> None:
    def row(winner: str, turn: int) -> dict[str, Any]:
        def turns(answer: str) -> list[dict[str, str]]:
            texts = ["Hi?", answer, "More?", f"{answer} again"]
            return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]

        return {"conversation_a": turns("yes"), "conversation_b": turns("no"), "winner": winner, "turn": turn}

    rows = [row("model_a", 1), row("model_a", 1), row("tie (inconsistent)", 1), row("model_b", 2)]
    (gold,) = read_gold(write_rows(tmp_path / "votes.jsonl", rows))
    assert [item.votes for item in gold.items] == [(1.0, 1.0, 0.0), (-1.0,)]
    assert gold.items[0].answers == ("yes", "no")
    assert gold.items[1].answers[0] == "assistant: yes\n\nuser: More?\n\nassistant: yes again"


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"question": "?", "reply": "!"}], "these columns are not a known form of votes: question, reply"),
        ([{**SHAPES["pairs"], "label": "c"}], "label is 'c'; it must be 1 or a"),
        ([{**SHAPES["LLMBar"], "label": None}], "label is ''"),
        ([{**SHAPES["grades"], "score": 9}], "score is '9'; grades run from 1 to 5"),
        ([{**SHAPES["grades"], "score": "good"}], "score is 'good'"),
        ([{**SHAPES["grades"], "score": "nan"}], "score is 'nan'"),
        ([{**SHAPES["pairs"], "a": None}], "a must hold text"),
        ([SHAPES["pairs"], {"prompt": "?", "a": "x", "b": "y"}], "column label is missing"),
        ([{**SHAPES["MT-bench"], "conversation_a": "hello"}], "conversation_a must be a list of messages"),
        ([{**SHAPES["MT-bench"], "conversation_a": [{"role": "user", "content": "!"}]}], "a question and an answer"),
        ([{**SHAPES["PandaLM"], "annotator1": 1, "annotator2": 2}], "there is no majority on any"),
    ],
)
def test_data_that_cannot_be_used_is_refused_with_the_place(
    tmp_path: Path, rows: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint) as caught:
        read_gold(write_rows(tmp_path / "votes.jsonl", rows))
    assert "votes.jsonl" in str(caught.value)


def test_a_folder_is_read_file_by_file_and_pairs_are_not_mixed_with_grades(tmp_path: Path) -> None:
    write_rows(tmp_path / "b.jsonl", [SHAPES["pairs"]])
    write_rows(tmp_path / "a.jsonl", [SHAPES["LLMBar"]])
    (tmp_path / "README.md").write_text("not data")
    assert [each.name for each in read_gold(tmp_path)] == ["a.jsonl", "b.jsonl"]
    write_rows(tmp_path / "c.jsonl", [SHAPES["grades"]])
    with pytest.raises(DataError, match="some files hold pairs and others grades"):
        read_gold(tmp_path)
    with pytest.raises(DataError, match="there is no such file or folder"):
        read_gold(tmp_path / "d")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no file that ends in"):
        read_gold(tmp_path / "empty")


def test_a_limit_draws_from_every_file_in_proportion_and_the_same_each_time(tmp_path: Path) -> None:
    for name, count in (("a", 60), ("b", 30)):
        write_rows(tmp_path / f"{name}.jsonl", [{**SHAPES["pairs"], "a": f"4.{n}"} for n in range(count)])
    drawn = read_gold(tmp_path, limit=30, seed=1)
    assert [len(each.items) for each in drawn] == [20, 10]
    assert read_gold(tmp_path, limit=30, seed=1) == drawn
    assert read_gold(tmp_path, limit=30, seed=2) != drawn
    assert [len(each.items) for each in read_gold(tmp_path, limit=10**6)] == [60, 30]


def test_a_judge_that_agrees_with_people_passes(tmp_path: Path) -> None:
    calibration = calibrated(votes(tmp_path), good_judge(0.1))
    assert calibration.passed
    shown = rendered(calibration)
    assert "PASSED" in shown
    assert f"{calibration.together.figures['kappa'].value:.2f}" in shown


@pytest.mark.parametrize("seed", range(5))
def test_a_random_judge_fails(tmp_path: Path, seed: int) -> None:
    calibration = calibrated(votes(tmp_path), at_random(seed))
    assert "kappa" in calibration.failures[0]
    assert any("depends on the order" in failure for failure in calibration.failures)


def test_a_random_judge_that_is_sure_of_itself_fails_on_agreement_alone(tmp_path: Path) -> None:
    """It flips its coin by the pair and not by the order, so that only people can tell."""

    def rule(judged: dict[str, Any]) -> dict[str, str]:
        texts = judged["first answer"], judged["second answer"]
        heads = random.Random(" ".join(sorted(texts))).random() < 0.5
        return {"winner": "first" if heads == (texts[0] < texts[1]) else "second"}

    (failure,) = calibrated(votes(tmp_path), StubJudge(rule)).failures
    assert failure.startswith("Its agreement with people may be chance")


# A preference for length


def flipping(share: float, seed: int = 0) -> StubJudge:
    """Says what people say, and the opposite for a share of the pairs, in both orders alike."""

    def rule(judged: dict[str, Any]) -> dict[str, str]:
        texts = judged["first answer"], judged["second answer"]
        wrong = random.Random(f"{seed} {sorted(texts)}").random() < share
        return {"winner": "first" if texts[0].startswith("good") != wrong else "second"}

    return StubJudge(rule)


def length_of(calibration: Calibration) -> Agreement:
    return calibration.together.figures["length"]


@pytest.mark.parametrize(
    ("judge", "value", "accused_of"),
    [
        (longest_wins(), 1, ["It prefers longer answers"]),
        (shortest_wins(), -1, ["It prefers shorter answers"]),
        (StubJudge(lambda judged: {"winner": "tie"}), 0, []),
        (always_first(), 0, []),
        (flipping(0), 0, []),
    ],
    ids=["longest", "shortest", "ties", "first", "people's own"],
)
def test_a_preference_for_length_is_1_for_the_longest_and_0_for_what_ignores_it(
    tmp_path: Path, judge: StubJudge, value: float, accused_of: list[str]
) -> None:
    calibration = calibrated(votes(tmp_path), judge)
    assert length_of(calibration).value == value
    accused = [failure for failure in calibration.failures if failure.startswith("It prefers")]
    assert [failure.split(":")[0] for failure in accused] == accused_of


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5], ids=["few mistakes", "many", "a coin"])
def test_mistakes_by_chance_are_no_preference_for_length(share: float) -> None:
    """People prefer the shorter answer in three pairs of four: there, whoever errs at random errs towards length."""
    generator, golds, longer = np.random.default_rng(0), np.ones(120), np.repeat([-1.0, 1.0], (90, 30))
    found = [
        measure_length_preference(np.where(generator.random(120) < share, -1.0, 1.0), golds, longer) for _ in range(400)
    ]
    lengths = [each for each in found if each is not None]
    assert len(lengths) == 400
    assert float(np.mean([each.value for each in lengths])) == pytest.approx(0, abs=0.02)
    assert sum(each.interval.lower > 0.1 or each.interval.upper < -0.1 for each in lengths) <= 8


def test_a_judge_that_goes_by_length_in_half_of_the_pairs_is_found(tmp_path: Path) -> None:
    def rule(judged: dict[str, Any]) -> Any:
        texts = judged["first answer"], judged["second answer"]
        by_length = random.Random(f"{sorted(texts)}").random() < 0.5
        return (shortest_wins() if by_length else flipping(0)).rule(judged)

    calibration = calibrated(votes(tmp_path), StubJudge(rule))
    assert length_of(calibration).value == pytest.approx(-0.5, abs=0.2)
    assert any(failure.startswith("It prefers shorter answers") for failure in calibration.failures)


def test_the_preference_is_the_difference_of_two_error_rates_with_newcombes_interval() -> None:
    """The reference is the first example of Newcombe (1998), table II: 56/70 less 48/80, from 0.0524 to 0.3339."""
    golds = np.array([1.0] * 150 + [0.0] * 9 + [1.0] * 9)
    longer = np.array([-1.0] * 70 + [1.0] * 80 + [1.0] * 9 + [0.0] * 9)
    verdicts = golds.copy()
    verdicts[:56] = verdicts[70:118] = -1.0
    verdicts[150:] = -1.0  # where people call a tie, and where the lengths are the same
    found = measure_length_preference(verdicts, golds, longer)
    assert found is not None
    assert (found.value, found.items) == (pytest.approx(0.2), 150)
    assert (found.interval.lower, found.interval.upper) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_few_pairs_accuse_nobody_of_a_preference_for_length() -> None:
    longer, golds = np.array([1.0] * 4 + [-1.0] * 40), np.ones(44)
    assert measure_length_preference(-golds, golds, longer) is None
    longer[4], verdicts = 1.0, golds.copy()
    verdicts[:2] = -1.0, 0.0
    found = measure_length_preference(verdicts, golds, longer)
    assert found is not None
    assert found.value == pytest.approx(-0.3)
    assert found.interval.upper > -0.1, "a mistake and a tie among five are no proof"


def test_a_judge_that_shares_peoples_taste_for_length_is_not_accused_of_it(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{n}?", "a": "long " * 9 + str(n), "b": f"short {n}", "label": "a"}
        if n % 2
        else {"prompt": f"{n}?", "a": f"short {n}", "b": "long " * 9 + str(n), "label": "b"}
        for n in range(60)
    ]
    calibration = calibrated(read_gold(write_rows(tmp_path / "votes.jsonl", rows)), longest_wins())
    assert calibration.passed
    assert "length" not in calibration.together.figures
    assert re.search(r"preference for the longer answer .* not known", rendered(calibration))


def test_grades_by_length_are_told_from_peoples_own_taste_and_from_noise() -> None:
    """People like it short here, so that the grades of a coin go with length more than theirs do."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(10, 500, 200).astype(float)
    people = np.clip(np.round(3 - (lengths - 250) / 150 + generator.normal(0, 0.8, 200)), 1, 5)
    noisy = np.clip(people + generator.integers(-1, 2, 200), 1, 5)
    assert measure_length_taste(lengths, people, lengths).value == pytest.approx(1)
    assert measure_length_taste(-lengths, people, lengths).value == pytest.approx(-1)
    for ignoring in (people, np.full(200, 3.0)):
        assert measure_length_taste(ignoring, people, lengths).value == 0
    for noise in (noisy, generator.integers(1, 6, 200).astype(float)):
        interval = measure_length_taste(noise, people, lengths).interval
        assert interval.lower < 0.1
        assert interval.upper > -0.1
    inverse = np.linalg.inv(np.asarray(spearmanr(np.column_stack([noisy, people, lengths])).statistic))
    partial = -inverse[0, 2] / np.sqrt(inverse[0, 0] * inverse[2, 2])
    assert measure_length_taste(noisy, people, lengths).value == pytest.approx(partial)


def test_an_always_first_judge_fails_on_order(tmp_path: Path) -> None:
    calibration = calibrated(votes(tmp_path), always_first())
    assert any(failure.startswith("Its verdict depends on the order") for failure in calibration.failures)
    assert calibration.together.figures["position"].value == 1
    assert calibration.together.figures["consistency"].value == 0
    assert calibration.together.figures["accuracy"].value == pytest.approx(0.5, abs=0.1)


def test_a_judge_whose_verdicts_cannot_be_read_fails(tmp_path: Path) -> None:
    judge = good_judge(0)
    mumbling = StubJudge(lambda judged: "Hm." if judged["number"] % 10 == 0 else judge.rule(judged))
    calibration = calibrated(votes(tmp_path), mumbling)
    assert calibration.failures == ("10.0% of its verdicts cannot be read, above 5%.",)
    assert (calibration.together.items, calibration.together.scored) == (100, 80)
    silent = calibrated(votes(tmp_path), StubJudge(lambda judged: "Hm."))
    assert len(silent.failures) == 2
    assert "0 scored items are too few" in silent.failures[0]


def test_few_items_do_not_pass_a_judge(tmp_path: Path) -> None:
    assert (
        "29 scored items are too few; at least 30 are needed."
        in calibrated(votes(tmp_path, 29), good_judge(0)).failures
    )


def test_the_bars_can_be_set(tmp_path: Path) -> None:
    assert calibrated(votes(tmp_path), good_judge(0.1), bars=Bars(kappa=0.99)).failures[0].endswith("below 0.99.")


def test_figures_agree_with_other_libraries(tmp_path: Path) -> None:
    generator, rows, verdicts = random.Random(3), [], {}
    for number in range(80):
        row = {"instruction": f"{number}?", "input": "", "response1": f"yes {number}", "response2": f"no {number}"}
        people = [generator.choice((1, 1, 2, 0)) for _ in range(2)]
        rows.append({**row, "annotator1": people[0], "annotator2": people[0], "annotator3": people[1]})
        verdicts[str(number)] = generator.choice((people[0], people[0], 1, 2, 0))

    def rule(judged: dict[str, Any]) -> dict[str, str]:
        verdict = verdicts[judged["first answer"].split()[1]]
        named = {0: "tie", 1: "yes", 2: "no"}[verdict]
        if named == "tie":
            return {"winner": "tie"}
        return {"winner": "first" if judged["first answer"].startswith(named) else "second"}

    calibration = calibrated(read_gold(write_rows(tmp_path / "votes.jsonl", rows)), StubJudge(rule))
    ours = [{1: 1, 2: -1, 0: 0}[verdicts[str(number)]] for number in range(80)]
    people = np.array([[{1: 1, 2: -1, 0: 0}[row[f"annotator{n}"]] for row in rows] for n in (1, 2, 3)])
    gold = people[0]
    figures = calibration.together.figures
    assert figures["kappa"].value == pytest.approx(cohen_kappa_score(ours, gold), abs=1e-9)
    assert figures["weighted_kappa"].value == pytest.approx(cohen_kappa_score(ours, gold, weights="linear"), abs=1e-9)
    alpha = krippendorff.alpha(np.vstack([ours, people]).astype(float), level_of_measurement="nominal")
    assert figures["alpha"].value == pytest.approx(alpha, abs=1e-9)
    ceiling = krippendorff.alpha(people.astype(float), level_of_measurement="nominal")
    assert figures["people_alpha"].value == pytest.approx(ceiling, abs=1e-9)
    credit = [1 if a == b else 0.5 if 0 in (a, b) else 0 for a, b in zip(ours, gold, strict=True)]
    assert figures["accuracy"].value == pytest.approx(float(np.mean(credit)))
    for figure in figures.values():
        assert figure.interval.lower <= figure.value <= figure.interval.upper


def test_pairs_that_are_decided_by_rule_count_neither_for_nor_against_a_judge(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "a": "same", "b": "same", "label": "tie"} for n in range(40)]
    rows += [{"prompt": f"{n}?", "a": ":", "b": f"It is {n}.", "label": "b"} for n in range(40)]
    judge = good_judge(0)
    calibration = calibrated(read_gold(write_rows(tmp_path / "votes.jsonl", rows)), judge)
    assert not judge.asked
    assert (calibration.together.items, calibration.together.by_rule) == (0, 80)
    assert not calibration.passed


def test_a_judge_that_grades_is_measured_on_pairs_by_which_answer_it_grades_higher(tmp_path: Path) -> None:
    sets = votes(tmp_path)
    calibration = calibrated(sets, grading(lambda text: 5 if text.startswith("good") else 2), grading="pointwise")
    assert calibration.passed
    assert calibration.grading == "pointwise"
    assert "consistency" not in calibration.together.figures
    by_length = calibrated(sets, grading(lambda text: 1 + (len(text) > 25)), grading="pointwise")
    assert any("It prefers longer answers" in failure for failure in by_length.failures)


def test_grades_are_measured_against_the_mean_of_peoples_grades(tmp_path: Path) -> None:
    generator = random.Random(5)
    rows = []
    for number in range(120):
        worth = generator.randint(1, 5)
        people = [min(5, max(1, worth + generator.choice((-1, 0, 0, 1)))) for _ in range(2)]
        answer = f"{worth} points{' more' * generator.randint(0, 20)} {number}"
        rows.append({"prompt": f"{number}?", "answer": answer, "score": people[0], "score_2": people[1]})
    sets = read_gold(write_rows(tmp_path / "grades.jsonl", rows))
    calibration = calibrated(sets, noisy_grading(1, lambda text: float(text[0]), spread=0.5))
    assert calibration.passed
    assert calibration.grading == "pointwise"
    figures = calibration.together.figures
    assert figures["rank_correlation"].value > 0.8
    assert {"exact", "weighted_kappa", "alpha", "people_alpha", "length", "unscored"} <= set(figures)
    random_grades = calibrated(sets, noisy_grading(2, lambda text: 3.0, spread=1.5))
    assert "may be chance" in random_grades.failures[0]
    by_length = calibrated(sets, grading(lambda text: min(5, 1 + len(text) // 25)))
    assert any("It prefers longer answers" in failure for failure in by_length.failures)


def test_what_will_be_asked_is_known_before(tmp_path: Path) -> None:
    sets, judge = votes(tmp_path, 40), good_judge(0)
    calibrated(sets, judge)
    requests = calibration_requests(sets, ONE_CRITERION, JUDGE.repeats)
    assert [request.identity for request in requests] == [request.identity for request in judge.asked]
    assert len(requests) == 80
    assert len(calibration_requests(sets, ONE_CRITERION, 2, "pointwise")) == 160


def test_several_files_are_reported_by_themselves_and_together(tmp_path: Path) -> None:
    one, two = votes(tmp_path / "one", 40, seed=1), votes(tmp_path / "two", 60, seed=2)
    calibration = calibrated((*one, *two), good_judge(0.1))
    assert [report.items for report in calibration.sets] == [40, 60]
    assert calibration.together.items == 100
    assert "100 of 100" in rendered(calibration)


@pytest.fixture
def passed(tmp_path: Path) -> Calibration:
    return calibrated(votes(tmp_path), good_judge(0.1))


def with_certificate(file: Path, **changes: Any) -> EndpointJudge:
    return JUDGE.model_copy(update={"certificate": str(file), **changes})


def test_a_certificate_comes_back_as_it_was_written(tmp_path: Path, passed: Calibration) -> None:
    file = tmp_path / "stub.json"
    write_certificate(passed, file)
    assert read_certificate(file) == passed
    document = json.loads(file.read_text())
    assert document == json.loads(json.dumps(certificate_document(passed)))
    assert document["passed"] is True
    with pytest.raises(OutputError, match="exists already"):
        write_certificate(passed, file)


def test_a_gate_accepts_the_certificate_of_the_same_judge_rubric_and_grading_only(
    tmp_path: Path, passed: Calibration
) -> None:
    file = tmp_path / "stub.json"
    write_certificate(passed, file)
    check_certificate(with_certificate(file), ONE_CRITERION, "pairwise")
    refusals: list[tuple[EndpointJudge, Any, Any, str]] = [
        (JUDGE, ONE_CRITERION, "pairwise", "this one names none"),
        (with_certificate(file, model="other"), ONE_CRITERION, "pairwise", "for another judge than"),
        (with_certificate(file), load_rubric("answer-quality"), "pairwise", "for another rubric than"),
        (with_certificate(file), ONE_CRITERION, "pointwise", "for another way of grading than"),
        (with_certificate(file, temperature=1.0), ONE_CRITERION, "pointwise", "another judge and another way"),
    ]
    for judge, rubric, way, complaint in refusals:
        with pytest.raises(UsageError, match=complaint):
            check_certificate(judge, rubric, way)
    check_certificate(with_certificate(file, connections=99, description="the same"), ONE_CRITERION, "pairwise")


def test_a_certificate_of_another_version_of_the_prompt_is_refused(tmp_path: Path, passed: Calibration) -> None:
    file = tmp_path / "stub.json"
    write_certificate(replace(passed, prompt_version="edgetune judge prompt 0"), file)
    with pytest.raises(UsageError, match="for another prompt than"):
        check_certificate(with_certificate(file), ONE_CRITERION, "pairwise")


def test_the_certificate_of_a_failed_calibration_says_why_and_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "stub.json"
    write_certificate(calibrated(votes(tmp_path), always_first()), file)
    with pytest.raises(UsageError, match=r"did not pass its calibration: .*depends on the order"):
        check_certificate(with_certificate(file), ONE_CRITERION, "pairwise")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "cannot be read"),
        ("[]", "not a certificate"),
        ('{"format": "something else"}', "not a certificate"),
        ('{"format": "edgetune judge certificate 2", "judge": "x"}', "damaged at judge_hash"),
        (
            '{"format": "edgetune judge certificate 1", "judge": "x"}',
            "an older format .*length.*calibrate .*again",
        ),
        (None, "there is no such certificate"),
    ],
)
def test_what_is_no_certificate_is_refused(tmp_path: Path, text: str | None, complaint: str) -> None:
    file = tmp_path / "stub.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(EdgetuneError, match=complaint):
        check_certificate(with_certificate(file), ONE_CRITERION, "pairwise")


def test_an_edited_verdict_does_not_make_a_failed_certificate_pass(tmp_path: Path) -> None:
    file = tmp_path / "stub.json"
    write_certificate(calibrated(votes(tmp_path), always_first()), file)
    file.write_text(file.read_text().replace('"passed": false', '"passed": true'))
    with pytest.raises(UsageError, match="did not pass"):
        check_certificate(with_certificate(file), ONE_CRITERION, "pairwise")
