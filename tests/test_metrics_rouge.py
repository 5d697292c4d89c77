"""ROUGE of summaries, against rouge-score."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from edgetune.metrics.rouge import has_rouge_words, measure_rouge, rouge_settings, score_rouge

SUMMARIES = ["The bill funds two schools.\nIt ends in 2027.", "Farmers were paid", ""]
REFERENCES = [
    ["This bill is funding schools.\nIt ended in 2027.", "Nothing of the kind."],
    ["A law on fishing.", "The farmer is paid by the state."],
    ["An answer was expected."],
]
NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def test_scores_are_the_mean_f1_of_rouge_score_in_percent() -> None:
    first = [texts[0] for texts in REFERENCES]
    scorer = RougeScorer(NAMES, use_stemmer=True)
    scores = [scorer.score(reference, summary) for reference, summary in zip(first, SUMMARIES, strict=True)]
    measured = measure_rouge(SUMMARIES, [[text] for text in first])
    assert measured.items == 3
    for name in NAMES:
        expected = sum(score[name].fmeasure for score in scores) / 3 * 100
        assert getattr(measured, name) == pytest.approx(expected)
    assert measured.rouge1 > measured.rouge2 > 0


def test_of_several_references_the_best_counts() -> None:
    measured = measure_rouge(SUMMARIES, REFERENCES)
    best = measure_rouge(SUMMARIES, [[REFERENCES[0][0]], [REFERENCES[1][1]], REFERENCES[2]])
    assert measured == best
    assert measured.rouge1 > measure_rouge(SUMMARIES, [texts[:1] for texts in REFERENCES]).rouge1


def test_a_perfect_summary_scores_100_and_an_empty_one_0() -> None:
    assert measure_rouge(["a long enough text"], [["a long enough text"]]).rougeL == 100
    assert measure_rouge([""], [["a long enough text"]]).rougeL == 0


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="0 predictions"):
        measure_rouge([], [])
    with pytest.raises(ValueError, match="2 references"):
        measure_rouge(["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match="no reference"):
        measure_rouge(["a"], [[]])


def test_the_example_of_rouge_scores_readme_has_the_figures_that_one_counts_by_hand() -> None:
    text, reference = "The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog"
    scores = score_rouge([text], [[reference]], ["rouge1", "rougeL"])
    assert scores["rouge1"] == [pytest.approx(100 * 12 / 17)]  # 6 of 8 words, 6 of 9
    assert scores["rougeL"] == [pytest.approx(100 * 10 / 17)]  # the quick brown jumps the: 5 of 8, 5 of 9


def test_each_item_of_scitldr_scores_as_rouge_score_has_it_with_the_best_of_its_references(shared_data: Path) -> None:
    lines = (shared_data / "scitldr" / "dev.jsonl").read_text().splitlines()[:40]
    rows = [json.loads(line) for line in lines]
    leads = [row["source"][0] for row in rows]
    references = [row["target"] for row in rows]
    assert max(map(len, references)) > 1
    scorer = RougeScorer(NAMES, use_stemmer=True)
    scores = score_rouge(leads, references, NAMES)
    for place, (lead, texts) in enumerate(zip(leads, references, strict=True)):
        each = [scorer.score(text, lead) for text in texts]
        for name in NAMES:
            assert scores[name][place] == pytest.approx(100 * max(score[name].fmeasure for score in each), abs=1e-9)


def test_sentences_are_lines_so_that_order_of_lines_matters_less_to_lsum_than_to_l() -> None:
    text, reference = "the second one ended\nthe first one began", "the first one began\nthe second one ended"
    scores = score_rouge([text], [[reference]], ["rougeL", "rougeLsum"])
    assert scores["rougeLsum"] == [100]
    assert scores["rougeL"][0] < 100
    on_one_line = score_rouge([text.replace("\n", ". ")], [[reference.replace("\n", ". ")]], ["rougeL", "rougeLsum"])
    assert on_one_line["rougeL"] == on_one_line["rougeLsum"]


def test_the_settings_name_versions_stemmer_and_sentences() -> None:
    settings = rouge_settings()
    assert settings["library"] == f"rouge-score {version('rouge-score')}"
    assert "Porter" in settings["stemmer"]
    assert "lines" in settings["sentences"]


def test_scripts_that_rouge_cannot_read_are_known() -> None:
    assert not has_rouge_words("猫は寝ている。")
    assert score_rouge(["猫は寝ている。"], [["猫は寝ている。"]], ["rouge1"])["rouge1"] == [0]
    assert has_rouge_words("NATO 猫")
