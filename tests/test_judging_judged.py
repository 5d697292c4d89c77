"""Whole judgements by judges: good ones find what changed, bad ones are found out, and nothing is asked twice."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.judged import CRITERIA, JUDGE, grades, judged_suite, put_judge, winner, write_outputs
from support.stub_endpoint import StubEndpoint, error_reply

from edgetune.errors import DataError, EdgetuneError, UsageError
from edgetune.judging.asking.request import Failed
from edgetune.judging.gate.gate import Outcome
from edgetune.judging.run import judge_model
from edgetune.judging.settings import Settings

FRESH = Settings(use_cache=False)
QUALITY = re.compile(r"quality (-?[\d.]+)")


def quality_of(answer: str) -> float:
    found = QUALITY.search(answer)
    return float(found[1]) if found else 0.0


def noise_of(identity: Mapping[str, Any], seed: int) -> np.random.Generator:
    """Chance that depends on what is asked, and on nothing else."""
    digest = hashlib.sha256(json.dumps([seed, identity], sort_keys=True).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def fair_judge(seed: int = 0, noise: float = 0.7) -> Any:
    """Grades the quality that an answer has, more or less; of two prefers the better one."""

    def judge(identity: Mapping[str, Any]) -> str:
        chance = noise_of(identity, seed)
        if "answer" in identity:
            shown = [quality_of(identity["answer"]) + chance.normal(0, noise) for _ in CRITERIA]
            return grades(*(int(np.clip(round(value), 1, 5)) for value in shown))
        first, second = quality_of(identity["first"]), quality_of(identity["second"])
        return winner("tie" if first == second else "first" if first > second else "second")

    return judge


def outputs(folder: Path, name: str, seed: int, shift: float = 0.0, items: int = 100) -> Path:
    """Answers of a model whose quality is 3.5 on average, less `shift`; what is hard is hard for every model."""
    hardness = np.random.default_rng(1).normal(0, 0.6, items)
    luck = np.random.default_rng(seed).normal(0, 0.5, items)
    values = 3.5 - shift + hardness + luck
    return write_outputs(
        folder / f"{name}.jsonl", [f"answer {n} with quality {value:.3f}" for n, value in enumerate(values)]
    )


def outcome_of(judgement: Any) -> Outcome:
    assert judgement.verdict is not None
    outcome: Outcome = judgement.verdict.outcome
    return outcome


def test_a_planted_loss_of_half_a_grade_is_found_and_an_equal_model_is_not_called_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = judged_suite(tmp_path / "suite", items=100)
    found, alarms, passed, seeds = 0, 0, 0, 40
    for seed in range(seeds):
        put_judge(monkeypatch, fair_judge(seed))
        old = outputs(tmp_path, "old", 1000 + seed)
        worse, alike = outputs(tmp_path, "worse", 2000 + seed, shift=0.5), outputs(tmp_path, "alike", 3000 + seed)
        found += outcome_of(judge_model(suite, worse, old, settings=FRESH)) is Outcome.REGRESSION
        alarms += outcome_of(judge_model(suite, alike, old, settings=FRESH)) is Outcome.REGRESSION
        passed += outcome_of(judge_model(suite, old, old, settings=FRESH)) is Outcome.PASS
    assert found >= 0.8 * seeds
    assert alarms <= 0.065 * seeds
    assert passed >= 0.95 * seeds


def test_the_rubrics_criteria_are_metrics_with_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_judge(monkeypatch, fair_judge())
    suite, new = judged_suite(tmp_path / "suite"), outputs(tmp_path, "new", 1, items=40)
    judgement = judge_model(suite, new, settings=FRESH)
    assert set(CRITERIA) <= set(judgement.candidate.metrics)
    measured = judgement.candidate.metrics["right"]
    assert measured.value == pytest.approx(np.mean(measured.values))
    assert measured.interval is not None
    assert measured.interval.lower < measured.value < measured.interval.upper
    assert judgement.exit_code == 0
    assert judgement.judges == ("stub",)


def test_too_many_unscored_verdicts_make_the_judge_invalid_and_few_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = judged_suite(tmp_path / "suite", items=100)
    old, new = outputs(tmp_path, "old", 1), outputs(tmp_path, "new", 1)
    fair = fair_judge()

    def silent_on(count: int) -> Any:
        quiet = {f"answer {number} " for number in range(count)}

        def judge(identity: Mapping[str, Any]) -> str | Failed:
            if any(identity["answer"].startswith(start) for start in quiet):
                return Failed("HTTP 500 after 6 attempts") if identity["answer"].endswith("1") else "I cannot say."
            return str(fair(identity))

        return judge

    put_judge(monkeypatch, silent_on(4))
    judgement = judge_model(suite, new, old, settings=FRESH)
    assert outcome_of(judgement) is Outcome.PASS
    assert judgement.verdict is not None
    assert [comparison.items for comparison in judgement.verdict.comparisons] == [96, 96]
    assert judgement.candidate.metrics["right"].values[0] is None
    put_judge(monkeypatch, silent_on(12))
    invalid = judge_model(suite, new, old, settings=FRESH)
    assert (outcome_of(invalid), invalid.exit_code) == (Outcome.JUDGE_INVALID, 4)
    assert "unscored" in invalid.verdict.reason  # type: ignore[union-attr]
    alone = judge_model(suite, new, settings=FRESH)
    assert alone.exit_code == 4


def test_a_judge_that_always_prefers_the_first_gives_only_ties_and_is_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = judged_suite(tmp_path / "suite", items=30, grading="pairwise")
    old, new = outputs(tmp_path, "old", 1, items=30), outputs(tmp_path, "new", 2, items=30)
    put_judge(monkeypatch, lambda identity: winner("first"))
    judgement = judge_model(suite, new, old, settings=FRESH)
    assert judgement.exit_code == 4
    assert judgement.verdict is not None
    assert judgement.verdict.comparisons[0].difference == 0


def test_a_judge_that_prefers_the_longer_answer_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.random.default_rng(0).permutation(60)
    old = write_outputs(tmp_path / "old.jsonl", [f"answer {n} " + "so " * 30 for n in range(60)])
    new = write_outputs(tmp_path / "new.jsonl", [f"answer {n} " + "so " * int(lengths[n]) for n in range(60)])

    def longest(identity: Mapping[str, Any]) -> str:
        if "answer" in identity:
            return grades(min(5, 1 + len(identity["answer"]) // 45))
        return winner("first" if len(identity["first"]) > len(identity["second"]) else "second")

    put_judge(monkeypatch, longest)
    pairwise = judged_suite(tmp_path / "suite", items=60, grading="pairwise")
    judgement = judge_model(pairwise, new, old, settings=FRESH)
    assert judgement.exit_code == 4
    assert "length" in judgement.verdict.reason  # type: ignore[union-attr]


def test_a_fair_judge_of_pairs_finds_the_better_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_judge(monkeypatch, fair_judge())
    suite = judged_suite(tmp_path / "suite", items=60, grading="pairwise")
    old, worse = outputs(tmp_path, "old", 1, items=60), outputs(tmp_path, "worse", 2, shift=0.6, items=60)
    lost = judge_model(suite, worse, old, settings=FRESH)
    assert (lost.exit_code, len(lost.preferences)) == (1, 120)
    assert judge_model(suite, old, worse, settings=FRESH).exit_code == 0


def test_empty_answers_are_graded_lowest_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = put_judge(monkeypatch, lambda identity: grades(5))
    suite = judged_suite(tmp_path / "suite", items=30)
    silent = write_outputs(tmp_path / "silent.jsonl", ["", ":", "Solution"] * 10)
    judgement = judge_model(suite, silent, settings=FRESH)
    assert not asked
    assert judgement.candidate.metrics["right"].value == 1
    assert {grade.problem for grade in judgement.candidate.grades} == {None}


def test_a_judge_that_has_changed_since_the_baseline_was_stored_is_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = judged_suite(tmp_path / "suite", items=60)
    old, new = outputs(tmp_path, "old", 1, items=60), outputs(tmp_path, "new", 2, items=60)
    put_judge(monkeypatch, fair_judge(noise=0.2))
    judge_model(suite, old, out=tmp_path / "old", settings=FRESH)
    stored = tmp_path / "old" / "report.json"
    same = judge_model(suite, new, stored, settings=FRESH)
    assert outcome_of(same) is not Outcome.JUDGE_INVALID
    lenient = fair_judge(noise=0.2)

    def drifted(identity: Mapping[str, Any]) -> str:
        verdict = json.loads(lenient(identity))
        return grades(*(min(5, verdict[name] + 1) for name in CRITERIA))

    put_judge(monkeypatch, drifted)
    changed = judge_model(suite, new, stored, settings=FRESH)
    assert changed.exit_code == 4
    assert "A/A control" in changed.verdict.reason  # type: ignore[union-attr]


@pytest.mark.parametrize("changed", ["judge", "rubric"])
def test_a_baseline_of_another_judge_or_rubric_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    put_judge(monkeypatch, fair_judge())
    suite, old = judged_suite(tmp_path / "suite"), outputs(tmp_path, "old", 1, items=40)
    judge_model(suite, old, out=tmp_path / "old", settings=FRESH)
    settings = FRESH
    if changed == "judge":
        settings = Settings((f"{JUDGE}-other",), use_cache=False)
    else:
        rubric = tmp_path / "suite" / "rubric.yaml"
        rubric.write_text(rubric.read_text().replace("grade 3", "so so"))
    with pytest.raises(DataError, match=f"another {changed}"):
        judge_model(suite, old, tmp_path / "old" / "report.json", settings=settings)


def test_a_panel_is_averaged_and_each_of_its_judges_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, new = judged_suite(tmp_path / "suite"), outputs(tmp_path, "new", 1, items=40)
    settings = Settings((f"{JUDGE}-a", f"{JUDGE}-b"), use_cache=False)
    values = iter([*[2] * 40, *[4] * 40])
    put_judge(monkeypatch, lambda identity: grades(next(values)))
    judgement = judge_model(suite, new, settings=settings)
    assert judgement.judges == ("stub-a", "stub-b")
    assert len(judgement.candidate.grades) == 80
    assert judgement.candidate.metrics["right"].values == (3.0,) * 40


def test_judging_the_same_thing_twice_asks_nothing_and_costs_nothing(tmp_path: Path) -> None:
    suite = judged_suite(tmp_path / "suite", items=20)
    old, new = outputs(tmp_path, "old", 1, items=20), outputs(tmp_path, "new", 2, items=20)
    with StubEndpoint(lambda body: grades(4)) as stub:
        (tmp_path / "judge.yaml").write_text(
            json.dumps(
                {
                    "name": "stub",
                    "model": "stub",
                    "url": stub.url,
                    "key": None,
                    "price": {"input": 1000, "output": 1000},
                }
            )
        )
        settings = Settings((str(tmp_path / "judge.yaml"),))
        first = judge_model(suite, new, old, settings=settings)
        asked = len(stub.requests)
        again = judge_model(suite, new, old, settings=settings)
        assert len(stub.requests) == asked == 60  # both models, and 20 controls
    assert (first.costs.asked, first.costs.cached) == (60, 0)
    assert (again.costs.asked, again.costs.cached) == (0, 60)
    assert first.costs.usd == pytest.approx(60 * (100 + 20) / 1000)
    assert again.costs.usd == 0
    assert again.verdict == first.verdict


def test_a_cap_on_the_cost_ends_a_judgement_and_keeps_what_is_done(tmp_path: Path) -> None:
    suite, new = judged_suite(tmp_path / "suite", items=30), outputs(tmp_path, "new", 5, items=30)
    with StubEndpoint(lambda body: grades(3)) as stub:
        judge = {"name": "stub", "model": "stub", "url": stub.url, "key": None, "connections": 2, "max_tokens": 50}
        (tmp_path / "free.yaml").write_text(json.dumps(judge))
        (tmp_path / "judge.yaml").write_text(json.dumps({**judge, "price": {"input": 1000, "output": 1000}}))
        with pytest.raises(UsageError, match="this judge has none"):
            judge_model(suite, new, settings=Settings((str(tmp_path / "free.yaml"),), max_cost_usd=1))
        priced = (str(tmp_path / "judge.yaml"),)
        with pytest.raises(EdgetuneError, match="--max-cost 2 is reached") as caught:
            judge_model(suite, new, settings=Settings(priced, max_cost_usd=2))
        done = len(stub.requests)
        assert 0 < done < 30
        assert "they are saved" in str(caught.value)
        judgement = judge_model(suite, new, settings=Settings(priced))
        assert len(stub.requests) == 30
    assert judgement.costs.cached == done


@pytest.mark.usefixtures("quick_backoff")
def test_what_an_endpoint_answered_is_kept_until_the_judgement_is_done_and_no_longer(tmp_path: Path) -> None:
    """An address may stand for other weights tomorrow, and old answers would hide that."""
    suite = judged_suite(tmp_path / "suite", items=12, rubric=None, judge=None)
    broken = True

    def answer(body: Any) -> Any:
        number = int(body["messages"][-1]["content"].split()[-1])
        return error_reply(500, "no") if broken and number == 10 else f"answer {number}"

    with StubEndpoint(answer) as stub:
        model = f"{stub.url}#model"
        with pytest.raises(EdgetuneError, match="finished answers are kept"):
            judge_model(suite, model)
        broken, stopped = False, len(stub.requests)
        judgement = judge_model(suite, model)
        resumed = len(stub.requests) - stopped
        assert 0 < resumed < 12
        assert [item.text for item in judgement.candidate.answers] == [f"answer {n}" for n in range(1, 13)]
        judge_model(suite, model)
        assert len(stub.requests) - stopped - resumed == 12
