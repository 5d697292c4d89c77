"""Classification metrics, by hand and against scikit-learn's report; unparsed answers are wrong and kept apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, classification_report

from edgetune.metrics.classification import classification_metrics

LABELS = ("negative", "neutral", "positive")
predictions = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None])), min_size=1, max_size=60)


def test_a_small_example_is_what_one_counts_by_hand() -> None:
    gold = ["negative", "negative", "negative", "neutral", "neutral", "positive"]
    predicted = ["negative", "positive", None, "neutral", "neutral", "negative"]
    metrics = classification_metrics(gold, predicted, LABELS)
    assert (metrics.items, metrics.right, metrics.unparsed) == (6, 3, 1)
    assert metrics.accuracy == 0.5
    assert metrics.confusion == ((1, 0, 1, 1), (0, 2, 0, 0), (1, 0, 0, 0))
    negative, neutral, positive = metrics.per_label
    assert (negative.precision, negative.recall, negative.support) == (1 / 2, 1 / 3, 3)
    assert negative.f1 == pytest.approx(0.4)
    assert (neutral.precision, neutral.recall, neutral.f1) == (1, 1, 1)
    assert (positive.precision, positive.recall, positive.f1, positive.support) == (0, 0, 0, 1)
    assert metrics.macro_f1 == pytest.approx((0.4 + 1 + 0) / 3)
    assert metrics.weighted_f1 == pytest.approx((3 * 0.4 + 2 * 1 + 1 * 0) / 6)


@given(predictions)
def test_metrics_agree_with_scikit_learns_report(pairs: list[tuple[str, str | None]]) -> None:
    gold = [true for true, _ in pairs]
    predicted = [guess for _, guess in pairs]
    named = ["(none)" if guess is None else guess for guess in predicted]
    report = classification_report(gold, named, labels=LABELS, zero_division=0, output_dict=True)
    metrics = classification_metrics(gold, predicted, LABELS)
    assert metrics.accuracy == pytest.approx(accuracy_score(gold, named), abs=1e-12)
    assert metrics.macro_f1 == pytest.approx(report["macro avg"]["f1-score"], abs=1e-12)
    assert metrics.weighted_f1 == pytest.approx(report["weighted avg"]["f1-score"], abs=1e-12)
    for label, scores in zip(LABELS, metrics.per_label, strict=True):
        assert (scores.precision, scores.recall, scores.f1, scores.support) == pytest.approx(
            tuple(report[label][name] for name in ("precision", "recall", "f1-score", "support")), abs=1e-12
        )


@given(predictions)
def test_the_confusion_matrix_holds_every_item_once(pairs: list[tuple[str, str | None]]) -> None:
    metrics = classification_metrics([true for true, _ in pairs], [guess for _, guess in pairs], LABELS)
    assert sum(map(sum, metrics.confusion)) == len(pairs)
    assert sum(row[-1] for row in metrics.confusion) == metrics.unparsed
    assert sum(metrics.confusion[i][i] for i in range(len(LABELS))) == metrics.right
    assert [sum(row) for row in metrics.confusion] == [label.support for label in metrics.per_label]


def test_a_label_may_be_called_unparsed() -> None:
    metrics = classification_metrics(["unparsed", "parsed"], ["unparsed", None], ["unparsed", "parsed"])
    assert metrics.confusion == ((1, 0, 0), (0, 0, 1))
    assert metrics.accuracy == 0.5


def test_a_label_that_nobody_names_counts_as_zero_in_macro_f1() -> None:
    assert classification_metrics(["negative"], ["negative"], LABELS).macro_f1 == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [([], [], "0 gold labels"), (["neutral"], [], "0 predictions"), (["neutral"], ["mixed"], "mixed")],
)
def test_what_cannot_be_measured_is_refused(gold: list[str], predicted: list[str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_metrics(gold, predicted, LABELS)
