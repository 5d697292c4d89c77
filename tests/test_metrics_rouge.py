"""ROUGE of summaries, against rouge-score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from edgetune.metrics.registry import METRICS
from edgetune.metrics.rouge import has_rouge_words, rouge_settings, score_rouge
from edgetune.metrics.samples import Sample, Samples

SUMMARIES = ["The bill funds two schools.\nIt ends in 2027.", "Farmers were paid", ""]
REFERENCES = [
    ["This bill is funding schools.\nIt ended in 2027.", "Nothing of the kind."],
    ["A law on fishing.", "The farmer is paid by the state."],
    ["An answer was expected."],
]
NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")

ascii_texts = st.text(alphabet="ab sing ran_ning's.\n1-TheX", max_size=40)


def means(summaries: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """ROUGE over all summaries by the registry, in the order of NAMES."""
    pairs = zip(summaries, references, strict=True)
    samples = Samples(tuple(Sample(text, text, references=tuple(best)) for text, best in pairs))
    return [METRICS[name].compute(samples).value for name in NAMES]


def test_scores_are_the_mean_f1_of_rouge_score_in_percent() -> None:
    first = [texts[0] for texts in REFERENCES]
    scorer = RougeScorer(NAMES, use_stemmer=True)
    scores = [scorer.score(reference, summary) for reference, summary in zip(first, SUMMARIES, strict=True)]
    found = means(SUMMARIES, [[text] for text in first])
    assert found == pytest.approx([100 * sum(score[name].fmeasure for score in scores) / 3 for name in NAMES])
    assert found[0] > found[1] > 0


def test_of_several_references_the_best_counts() -> None:
    found = means(SUMMARIES, REFERENCES)
    assert found == means(SUMMARIES, [[REFERENCES[0][0]], [REFERENCES[1][1]], REFERENCES[2]])
    assert found[0] > means(SUMMARIES, [texts[:1] for texts in REFERENCES])[0]


def test_a_perfect_summary_scores_100_and_an_empty_one_0() -> None:
    assert means(["a long enough text"], [["a long enough text"]]) == [100] * 4
    assert means([""], [["a long enough text"]]) == [0] * 4


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="0 predictions"):
        score_rouge([], [], NAMES)
    with pytest.raises(ValueError, match="2 references"):
        score_rouge(["a"], [["a"], ["b"]], NAMES)
    with pytest.raises(ValueError, match="no reference"):
        score_rouge(["a"], [[]], NAMES)


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


def test_the_settings_name_versions_stemmer_sentences_and_words() -> None:
    found = rouge_settings([["A cat."]])
    assert found["library"] == f"rouge-score {version('rouge-score')}"
    assert "Porter" in found["stemmer"]
    assert "lines" in found["sentences"]
    assert found["words"].startswith("rouge-score's")
    assert "Unicode" in rouge_settings([["Кот."], ["A cat."]])["words"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(ascii_texts, ascii_texts), min_size=1, max_size=4))
def test_texts_of_ascii_score_as_rouge_score_has_it_in_the_company_of_any_language(
    pairs: list[tuple[str, str]],
) -> None:
    scorer = RougeScorer(NAMES, use_stemmer=True)
    for company in ([], [("кот", "кот")]):
        texts = [*pairs, *company]
        scores = score_rouge([text for text, _ in texts], [[reference] for _, reference in texts], NAMES)
        for place, (text, reference) in enumerate(pairs):
            expected = scorer.score(reference, text)
            assert [scores[name][place] for name in NAMES] == [100 * expected[name].fmeasure for name in NAMES]


def test_english_with_few_accents_scores_as_rouge_score_has_it() -> None:
    filler = "The committee of the house has met on many days of the week to speak about schools. " * 20
    texts = [filler + "Beyoncé sang in a naïve café.", "A naive Beyonce sang."]
    references = ["A naïve Beyoncé sang in the café. " + filler, "A naïve Beyoncé sang."]
    scorer = RougeScorer(NAMES, use_stemmer=True)
    scores = score_rouge(texts, [[reference] for reference in references], NAMES)
    for place, (text, reference) in enumerate(zip(texts, references, strict=True)):
        assert {name: scores[name][place] for name in NAMES} == {
            name: 100 * score.fmeasure for name, score in scorer.score(reference, text).items()
        }


def test_an_answer_in_another_script_is_read_in_full_beside_english_references() -> None:
    scores = score_rouge(["Кошка родилась в 1987 году"], [["born in 1987"]], ["rouge1"])
    assert scores["rouge1"] == [pytest.approx(100 * 2 / 8)]  # 1 of 5 words, 1 of 3; rouge-score sees the year alone


@pytest.mark.parametrize(
    ("text", "reference", "rouge1", "rouge2"),
    [
        # 3 of 4 words, 2 of 3 pairs
        ("Кошка спит на крыше", "кошка спит на диване", 75, 200 / 3),
        # 5 of 6 characters on both sides, 4 of 5 pairs; punctuation is none
        ("猫在沙发睡。", "猫在沙发上睡", 100 * 10 / 11, 100 * 6 / 9),
        # whole words with their accents: 2 of 4, where rouge-score would read d, lib, r and ration as words
        ("La délibération de l'été", "la fédération de l'été", 80, 50),
        ("STRASSE", "Straße", 100, 0),
        # one form of Unicode, marks stay in their words, joiners of no width are none
        ("é", "e\u0301", 100, 0),
        ("नमस्ते दुनिया", "नमस्ते", 200 / 3, 0),
        ("می\u200cخواهم", "میخواهم", 100, 0),
        ("مُحَمَّد", "مُحَمَّد", 100, 0),
        # letters of Thai by themselves, each with its marks: ที่ and นี้
        ("ที่", "นี้", 0, 0),
        ("ที่นี้", "ที่", 200 / 3, 0),
        ("２０２４年", "2024 年", 100, 100),
    ],
)
def test_every_script_is_read_word_by_word_or_letter_by_letter(
    text: str, reference: str, rouge1: float, rouge2: float
) -> None:
    scores = score_rouge([text], [[reference]], ["rouge1", "rouge2"])
    assert scores["rouge1"] == [pytest.approx(rouge1)]
    assert scores["rouge2"] == [pytest.approx(rouge2)]


def test_texts_without_letters_and_digits_are_known() -> None:
    assert not has_rouge_words("🎉 —!")
    assert has_rouge_words("猫は寝ている。")
    assert has_rouge_words("7")
