"""ROUGE of summaries, against rouge-score."""

from __future__ import annotations

import pytest
from rouge_score.rouge_scorer import RougeScorer

from edgetune.metrics.rouge import measure_rouge

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
