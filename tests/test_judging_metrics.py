"""The registry of metrics: their values, their aggregates under weights, and which of them a suite means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from edgetune.data.example import Message
from edgetune.errors import DataError, RecipeError
from edgetune.judging.gate.comparison import Outcome
from edgetune.judging.gate.gate import decide
from edgetune.judging.metrics.choice import default_metrics, find_metrics, main_metric
from edgetune.judging.metrics.estimate import estimate_metric
from edgetune.judging.metrics.rare_labels import largest_weight
from edgetune.judging.metrics.samples import check_same_tokens, confusion_of, samples_of
from edgetune.judging.statistics.quantity import Pairing
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Gate, Suite
from edgetune.metrics.metric import MetricResult
from edgetune.metrics.registry import METRICS

LABELS = ["bad", "fine", "good"]
FORMATS = {"classify": "text-label", "generate": "prompt", "summarize": "text-summary", "perplexity": "text"}
WRITTEN = [name for name, metric in METRICS.items() if "generate" in metric.tasks]
TEXTS = ["", "the cat sat", "A cat sat down.", "dogs bark", '{"a": 1}', "[2]", "7"]


def suite_of(task: str, **settings: Any) -> Suite:
    given: dict[str, Any] = {"name": "little", "task": task, "data": [{"source": "x.jsonl", "format": FORMATS[task]}]}
    if task == "classify":
        given |= {"labels": LABELS, "prompt": "{text}?"}
    return Suite.model_validate({**given, **settings})


def item_of(number: int, text: str = "text", gold: str | None = None, references: Sequence[str] = ()) -> Item:
    return Item(str(number), f"x:{number}", text, (Message("user", text),), gold, tuple(references))


def result_of(name: str, items: Sequence[Item], answers: Sequence[Answer], suite: Suite) -> MetricResult:
    return METRICS[name].compute(samples_of(items, answers, suite))


def labelled(pairs: Sequence[tuple[str, str | None]]) -> tuple[list[Item], list[Answer]]:
    items = [item_of(number, gold=gold) for number, (gold, _) in enumerate(pairs)]
    return items, [Answer(str(number), predicted=guess) for number, (_, guess) in enumerate(pairs)]


GENERATE = suite_of("generate", json_schema={"type": "object"})
label_pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None])), min_size=1, max_size=12)
weighted = st.lists(st.integers(0, 3), min_size=12, max_size=12)


@settings(max_examples=40)
@given(label_pairs)
def test_label_metrics_agree_with_scikit_learn(pairs: list[tuple[str, str | None]]) -> None:
    items, answers = labelled(pairs)
    gold, named = [true for true, _ in pairs], [guess or "(none)" for _, guess in pairs]
    suite = suite_of("classify")
    assert result_of("accuracy", items, answers, suite).value == pytest.approx(accuracy_score(gold, named), abs=1e-12)
    for name, average in (("macro_f1", "macro"), ("weighted_f1", "weighted")):
        expected = f1_score(gold, named, labels=LABELS, average=average, zero_division=0)
        assert result_of(name, items, answers, suite).value == pytest.approx(expected, abs=1e-12)
        table = confusion_of(samples_of(items, answers, suite))
        assert getattr(table, name) == pytest.approx(expected, abs=1e-12)
    precision = precision_score(gold, named, labels=LABELS, average="macro", zero_division=0)
    assert result_of("macro_precision", items, answers, suite).value == pytest.approx(precision, abs=1e-12)
    recall = recall_score(gold, named, labels=LABELS, average="macro", zero_division=0)
    assert result_of("macro_recall", items, answers, suite).value == pytest.approx(recall, abs=1e-12)


@given(label_pairs, weighted)
def test_weights_of_label_metrics_are_items_counted_so_often(
    pairs: list[tuple[str, str | None]], draws: list[int]
) -> None:
    counts = draws[: len(pairs)]
    repeated = [pair for pair, count in zip(pairs, counts, strict=True) for _ in range(count)]
    if not repeated:
        return
    suite = suite_of("classify")
    for name in ("accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall"):
        once = result_of(name, *labelled(pairs), suite)
        again = result_of(name, *labelled(repeated), suite)
        assert once.aggregate(np.array([counts], dtype=float)) == pytest.approx([again.value], abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(*[st.sampled_from(TEXTS)] * 3), min_size=1, max_size=6), weighted)
def test_weights_of_metrics_of_written_answers_are_items_counted_so_often(
    rows: list[tuple[str, str, str]], draws: list[int]
) -> None:
    counts = draws[: len(rows)]
    if not sum(counts):
        return
    items = [item_of(number, references=[a, b, "the 1"]) for number, (_, a, b) in enumerate(rows)]
    answers = [
        Answer(str(n), text=text, generated_tokens=n, tokens_per_second=n + 0.5, first_token_seconds=0.1 * n)
        for n, (text, _, _) in enumerate(rows)
    ]
    places = [place for place, count in enumerate(counts) for _ in range(count)]
    for name in WRITTEN:
        once = result_of(name, items, answers, GENERATE)
        again = result_of(name, [items[p] for p in places], [answers[p] for p in places], GENERATE)
        values = once.aggregate(np.array([counts, [1] * len(rows)], dtype=float))
        assert values == pytest.approx([again.value, once.value], abs=1e-9)
        assert len(once.values) == len(rows)


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 40)), min_size=1, max_size=8), weighted)
def test_weights_of_likelihoods_are_items_counted_so_often(rows: list[tuple[float, int]], draws: list[int]) -> None:
    counts = draws[: len(rows)]
    if not sum(counts):
        return
    suite = suite_of("perplexity")
    items = [item_of(number, "é" * size) for number, (_, size) in enumerate(rows)]
    answers = [Answer(str(number), nll_nats=nats, nll_tokens=size) for number, (nats, size) in enumerate(rows)]
    places = [place for place, count in enumerate(counts) for _ in range(count)]
    nats, sizes = (np.array([row[k] for row in rows], dtype=float)[places].sum() for k in (0, 1))
    weights = np.array([counts], dtype=float)
    assert result_of("perplexity", items, answers, suite).aggregate(weights) == pytest.approx([nats / sizes])
    bits = nats / math.log(2) / (2 * sizes)
    assert result_of("bits_per_byte", items, answers, suite).aggregate(weights) == pytest.approx([bits])


def test_rouge_by_item_is_rouge_scores_best_reference_in_points() -> None:
    items = [item_of(1, references=["A cat sat.", "Cats were sitting."]), item_of(2, references=["Dogs\nbark"])]
    answers = [Answer("1", text="The cat was sitting"), Answer("2", text="bark\ndogs")]
    for name in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        scorer = RougeScorer([name], use_stemmer=True)
        expected = [
            100 * max(scorer.score(text, answer.text)[name].fmeasure for text in item.references)
            for item, answer in zip(items, answers, strict=True)
        ]
        found = result_of(name, items, answers, suite_of("summarize"))
        assert found.values == pytest.approx(expected)
        assert found.value == pytest.approx(sum(expected) / 2)
        assert "rouge-score" in METRICS[name].all_details([item.references for item in items])["library"]


def test_items_without_a_reference_have_no_value_and_do_not_count() -> None:
    items = [item_of(1, references=["yes"]), item_of(2), item_of(3, references=["no"])]
    answers = [Answer("1", text="Yes."), Answer("2", text="maybe"), Answer("3", text="yes")]
    found = result_of("exact_match", items, answers, GENERATE)
    assert found.values == (1, None, 0)
    assert found.value == 0.5
    assert found.aggregate(np.array([[1.0, 5.0, 0.0], [0.0, 1.0, 1.0]])) == pytest.approx([1, 0])
    assert np.isnan(found.aggregate(np.array([[0.0, 3.0, 0.0]]))[0])
    assert result_of("rouge1", items, answers, GENERATE).values == (100, None, 0)


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("exact_match", Answer("1", text="x"), "no item has a reference"),
        ("rougeL", Answer("1", text="x"), "no item has a reference"),
        ("length_words", Answer("1"), "1 of 1 answers have no text, such as that to 1"),
        ("length_tokens", Answer("1", text="x"), "token counts are missing"),
        ("tokens_per_second", Answer("1", text="x"), "the speed of these answers was not measured"),
        ("first_token_seconds", Answer("1", text="x"), "the speed of these answers was not measured"),
        ("accuracy", Answer("1", predicted="good"), "1 of 1 items have no right label"),
        ("macro_f1", Answer("1", predicted="good"), "1 of 1 items have no right label"),
        ("perplexity", Answer("1", nll_nats=1.0), "use the metric bits_per_byte instead"),
        ("perplexity", Answer("1", nll_nats=1.0, nll_tokens=0), "no text has a token"),
        ("perplexity", Answer("1", nll_tokens=1), "have no likelihood"),
        ("bits_per_byte", Answer("1"), "have no likelihood"),
    ],
)
def test_what_a_metric_lacks_is_said(name: str, answer: Answer, words: str) -> None:
    with pytest.raises(DataError) as caught:
        result_of(name, [item_of(1)], [answer], suite_of(METRICS[name].tasks[0]))
    assert words in str(caught.value)


def test_rouge_refuses_references_that_it_cannot_read_instead_of_finding_all_models_equal() -> None:
    items = [item_of(1, references=["🎉🎉"]), item_of(2, references=["→"]), item_of(3, references=["a dog"])]
    answers = [Answer(str(number), text="🎉🎉") for number in (1, 2, 3)]
    with pytest.raises(DataError, match=r"the references of 2 of 3 items.*exact_match"):
        estimate_metric(METRICS["rougeL"], items, samples_of(items, answers, GENERATE), 0.95)
    assert result_of("rougeL", items[1:], answers[1:], GENERATE).value == 0
    assert result_of("exact_match", items, answers, GENERATE).values == (1, 0, 0)


def test_an_unrelated_russian_sentence_of_the_same_year_scores_low_and_the_report_names_the_words() -> None:
    items = [item_of(year, references=[f"Открытие музея состоялось летом {year} года"]) for year in range(1100, 2000)]
    answers = [Answer(item.id, text=f"Кошка спит на тёплой крыше, {item.id}") for item in items]
    right = [Answer(item.id, text=item.references[0].upper() + "!") for item in items]
    for name, value in (("rouge1", 100 / 6), ("rouge2", 0), ("rougeL", 100 / 6), ("token_f1", 1 / 6)):
        assert result_of(name, items, answers, GENERATE).value == pytest.approx(value)  # one word of six is the year
        assert result_of(name, items, right, GENERATE).value == pytest.approx(1 if name == "token_f1" else 100)
    assert "Unicode's letters" in METRICS["rougeL"].all_details([item.references for item in items])["words"]
    english = [item_of(1, references=["A dog sits in the street, as ever. " * 20 + "Café."])]
    assert "a-z and 0-9" in METRICS["rougeL"].all_details([english[0].references])["words"]


def test_json_answers_are_right_or_wrong() -> None:
    answers = [Answer(str(place), text=text) for place, text in enumerate(['{"a": 1}', "[1]", "no"])]
    items = [item_of(place) for place in range(3)]
    assert result_of("json_valid", items, answers, GENERATE).values == (1, 1, 0)
    assert result_of("json_schema", items, answers, GENERATE).values == (1, 0, 0)


def test_an_unparsed_label_is_wrong_and_a_foreign_one_is_refused_by_the_confusion_matrix() -> None:
    items, answers = labelled([("good", None), ("bad", "bad")])
    assert result_of("accuracy", items, answers, suite_of("classify")).values == (0, 1)
    with pytest.raises(DataError, match="the label 'so-so', which the suite has not"):
        confusion_of(samples_of(items, [answers[0], Answer("1", predicted="so-so")], suite_of("classify")))


def test_perplexity_is_kept_as_a_logarithm_by_item_and_overall() -> None:
    items = [item_of(1), item_of(2), item_of(3)]
    answers = [
        Answer("1", nll_nats=8.0, nll_tokens=4),
        Answer("2", nll_nats=3.0, nll_tokens=1),
        Answer("3", nll_nats=0.0, nll_tokens=0),
    ]
    found = result_of("perplexity", items, answers, suite_of("perplexity"))
    assert found.values == (2.0, 3.0, None)
    assert found.value == pytest.approx(11 / 5)


def test_perplexities_of_other_tokens_are_not_compared() -> None:
    first = [Answer("a", nll_nats=1.0, nll_tokens=3), Answer("b", nll_nats=1.0, nll_tokens=5)]
    check_same_tokens(first, [Answer("a", nll_nats=2.0, nll_tokens=3), Answer("b", nll_nats=0.5, nll_tokens=5)])
    with pytest.raises(DataError, match=r"5 and 6 in item b.*bits_per_byte"):
        check_same_tokens(first, [first[0], Answer("b", nll_nats=1.0, nll_tokens=6)])


def test_every_metric_can_be_gated_or_says_that_it_cannot() -> None:
    for name, found in METRICS.items():
        assert found.name == name
        assert set(found.tasks) <= set(FORMATS)
        assert found.kind in ("accuracy", "score", "aggregate")
        if found.default_margin is not None:
            assert found.default_margin > 0
            assert found.higher_is_better is not None
    assert [name for name, found in METRICS.items() if found.higher_is_better is None] == [
        "length_words",
        "length_characters",
        "length_tokens",
    ]
    assert [name for name, found in METRICS.items() if found.higher_is_better is False] == [
        "perplexity",
        "bits_per_byte",
        "first_token_seconds",
    ]


@pytest.mark.parametrize(
    ("task", "settings", "references", "names", "main"),
    [
        ("classify", {}, [], "accuracy macro_f1 weighted_f1", "accuracy"),
        ("summarize", {}, ["x"], "rouge1 rouge2 rougeL rougeLsum length_words", "rougeL"),
        ("generate", {}, ["x"], "exact_match token_f1 rougeL length_words", "token_f1"),
        ("generate", {"json_schema": {}}, [], "json_valid json_schema length_words", "json_schema"),
        ("perplexity", {}, [], "perplexity bits_per_byte", "perplexity"),
    ],
)
def test_defaults_fit_task_and_data(
    task: str, settings: dict[str, Any], references: list[str], names: str, main: str
) -> None:
    suite = suite_of(task, **settings)
    items = [item_of(1, gold="good", references=references)]
    found = default_metrics(suite, items)
    assert found == tuple(names.split())
    assert [metric.name for metric in find_metrics(found, suite)] == names.split()
    assert main_metric(suite, items) == main


@pytest.mark.parametrize(
    ("task", "metrics", "main"),
    [
        ("classify", ["macro_f1"], "macro_f1"),
        ("classify", ["macro_recall", "macro_f1"], "macro_recall"),
        ("classify", ["macro_f1", "accuracy"], "accuracy"),
        ("summarize", ["rouge1", "rougeL"], "rougeL"),
        ("generate", ["length_words", "json_valid"], "json_valid"),
        ("generate", ["first_token_seconds", "exact_match", "rouge1"], "exact_match"),
        ("perplexity", ["bits_per_byte"], "bits_per_byte"),
    ],
)
def test_the_gate_compares_what_the_suite_computes(task: str, metrics: list[str], main: str) -> None:
    assert main_metric(suite_of(task, metrics=metrics), [item_of(1)]) == main


def test_a_suite_without_anything_to_compare_is_told_what_it_could_give() -> None:
    with pytest.raises(RecipeError, match=r"none of the metrics here \(length_words\).*references.*rubric"):
        main_metric(suite_of("generate"), [item_of(1), item_of(2)])


@pytest.mark.parametrize(
    ("names", "settings", "words"),
    [
        (["rouge3"], {}, "there is no metric rouge3 (did you mean rouge"),
        (["accuracy"], {}, "metric accuracy is for task classify; task generate has json_valid"),
        (["json_schema"], {}, "metric json_schema needs a schema"),
    ],
)
def test_metrics_that_cannot_be_meant_are_refused(names: list[str], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        find_metrics(names, suite_of("generate", **settings))
    assert words in str(caught.value)
    assert "little: " in str(caught.value)


def test_ten_thousand_resamples_of_five_hundred_items_take_no_loop_over_items() -> None:
    random = np.random.default_rng(0)
    pairs = [(LABELS[a], LABELS[b]) for a, b in random.integers(0, 3, (500, 2))]
    weights = random.multinomial(500, np.full(500, 1 / 500), size=10_000).astype(float)
    values = result_of("macro_f1", *labelled(pairs), suite_of("classify")).aggregate(weights)
    assert values.shape == (10_000,)
    again = [pair for pair, count in zip(pairs, weights[7].astype(int), strict=True) for _ in range(count)]
    assert values[7] == pytest.approx(result_of("macro_f1", *labelled(again), suite_of("classify")).value)


def test_rouge_of_scitldr_leads_is_what_rouge_score_finds(shared_data: Path) -> None:
    from edgetune.judging.suites.items import read_items

    data = {
        "source": str(shared_data / "scitldr" / "dev.jsonl"),
        "split": "train[:30]",
        "format": "text-summary",
        "columns": {"text": "source", "summary": "target"},
        "id": "paper_id",
    }
    suite = Suite.model_validate({"name": "scitldr", "task": "summarize", "data": [data]})
    items = read_items(suite)
    answers = [Answer(item.id, text=item.text.split("\n")[0]) for item in items]
    scorer = RougeScorer(["rougeLsum"], use_stemmer=True)
    expected = [
        scorer.score_multi(item.references, answer.text)["rougeLsum"].fmeasure
        for item, answer in zip(items, answers, strict=True)
    ]
    found = result_of("rougeLsum", items, answers, suite)
    assert found.value == pytest.approx(100 * sum(expected) / 30, abs=1e-9)
    assert found.value > 10


def test_an_item_of_a_rare_label_weighs_as_much_as_its_labels_share_in_the_metric() -> None:
    gold = ["bad"] * 150 + ["fine"] * 40 + ["good"] * 10
    items, right = labelled([(label, label) for label in gold])
    suite = suite_of("classify")
    samples = samples_of(items, right, suite)
    weights = {name: largest_weight(METRICS[name], samples) for name in ("macro_recall", "macro_f1", "accuracy")}
    # Of 3 labels that of 10 items: its recall falls by a tenth.
    assert weights["macro_recall"] == pytest.approx(200 / (3 * 10))
    assert weights["accuracy"] == 1
    falls = []
    for wrong, names in ((199, "fine"), (0, "good"), (150, "good")):
        answers = [replace(answer, predicted=names) if place == wrong else answer for place, answer in enumerate(right)]
        falls.append(200 * (1 - result_of("macro_f1", items, answers, suite).value))
    assert weights["macro_f1"] == pytest.approx(max(falls))
    scored = samples_of([item_of(1)], [Answer("1", nll_nats=1.0, nll_tokens=1)], suite_of("perplexity"))
    assert largest_weight(METRICS["perplexity"], scored) == 1


@pytest.mark.parametrize("margin", [0.02, 0.05])
def test_a_rare_label_that_fell_unseen_lets_no_macro_recall_pass(margin: float) -> None:
    # All right on both sides. With 3 margins of its 10 items wrong, the rare label alone would lose the margin, and in
    # 54 and 20 % of the samples none of the 10 would show it.
    pairs = [(label, label) for label in ["bad"] * 150 + ["fine"] * 40 + ["good"] * 10]
    items, answers = labelled(pairs)
    recall, samples = METRICS["macro_recall"], samples_of(items, answers, suite_of("classify"))
    aggregate = recall.compute(samples).aggregate
    weight = largest_weight(recall, samples)
    equal = Pairing(
        "macro_recall", "Macro recall", "aggregate", "share", True, margin, 200, None, None, aggregate, aggregate
    )
    assert decide([equal], Gate()).outcome is Outcome.PASS
    assert decide([replace(equal, item_weight=weight)], Gate()).outcome is Outcome.INCONCLUSIVE
    alone = estimate_metric(recall, items, samples, 0.95).interval
    assert alone is not None
    assert alone.lower < 1 - margin
    assert alone.upper == 1
