"""Texts with a label and texts with an answer, cut as Transformers cuts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.tiny_tasks import LABELS, TEXTS, tiny_tokenizer

from edgetune.data.example import Example, Message
from edgetune.data.tokenize_texts import Frame, frame_of, tokenize_pairs, tokenize_texts
from edgetune.errors import DataError
from edgetune.recipe.data import Percentile

ROWS = [
    Example((Message("user", text), Message("assistant", label)), f"a.jsonl:{number}", label)
    for number, (text, label) in enumerate(TEXTS)
]


@pytest.fixture(scope="module", params=["bert", "t5", "decoder"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return tiny_tokenizer(request.param)


@pytest.fixture(scope="module")
def t5() -> Any:
    return tiny_tokenizer("t5")


@pytest.mark.parametrize("limit", [3, 4, 6, 100])
def test_texts_have_the_ids_that_transformers_gives_and_cuts(tokenizer: Any, limit: int) -> None:
    data = tokenize_texts(ROWS, LABELS, tokenizer.encode, limit)
    texts = [text for text, _ in TEXTS]
    expected = tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
    assert [list(row.input_ids) for row in data.examples] == expected
    assert [row.labels for row in data.examples] == [(LABELS.index(label),) for _, label in TEXTS]
    whole = list(map(len, tokenizer(texts)["input_ids"]))
    assert data.lengths == tuple(whole)
    assert data.truncated == sum(length > limit for length in whole)
    assert data.lost_tokens == sum(max(0, length - limit) for length in whole)
    assert (data.dropped, data.max_length_tokens) == (0, limit)


def test_the_frame_is_what_a_tokenizer_puts_around_texts(tokenizer: Any) -> None:
    frame = frame_of(tokenizer.encode)
    ids = tokenizer.encode("sun and rain")
    inner = tokenizer.encode("sun and rain", add_special_tokens=False)
    assert [*frame.before, *inner, *frame.after] == ids
    assert len(frame.before + frame.after) == tokenizer.num_special_tokens_to_add()


def test_a_limit_below_the_frame_keeps_its_beginning() -> None:
    assert Frame((1, 2), (3,)).cut([1, 2, 9, 9, 3], 2) == (1, 2)
    assert Frame((1, 2), (3,)).cut([1, 2, 9, 9, 3], 3) == (1, 2, 3)


def test_pairs_have_the_ids_that_transformers_gives_and_cuts(t5: Any) -> None:
    data = tokenize_pairs(ROWS, t5.encode, 6, 3)
    texts, answers = [text for text, _ in TEXTS], [label for _, label in TEXTS]
    expected = t5(texts, truncation=True, max_length=6)["input_ids"]
    targets = t5(text_target=answers, truncation=True, max_length=3)["input_ids"]
    assert [list(row.input_ids) for row in data.examples] == expected
    assert [list(row.labels) for row in data.examples] == targets
    assert {ids[-1] for row in data.examples for ids in (row.input_ids, row.labels)} == {t5.eos_token_id}
    assert (data.max_length_tokens, data.max_target_length_tokens) == (6, 3)
    assert data.target_lengths == tuple(map(len, t5(text_target=answers)["input_ids"]))


def test_answers_stay_whole_without_a_limit(t5: Any) -> None:
    data = tokenize_pairs(ROWS, t5.encode, 100)
    assert [t5.decode(row.labels, skip_special_tokens=True) for row in data.examples] == [label for _, label in TEXTS]
    assert data.truncated == 0


def test_percentiles_are_of_each_side(t5: Any) -> None:
    data = tokenize_pairs(ROWS, t5.encode, Percentile(percentile=50), Percentile(percentile=100))
    assert sum(length <= data.max_length_tokens for length in data.lengths) >= len(ROWS) / 2
    assert sum(length < data.max_length_tokens for length in data.lengths) < len(ROWS) / 2
    assert data.max_target_length_tokens == max(data.target_lengths)


@pytest.mark.parametrize(
    "tokenize",
    [
        lambda rows, encode: tokenize_texts(rows, LABELS, encode, 9),
        lambda rows, encode: tokenize_pairs(rows, encode, 9),
    ],
)
def test_weights_are_handed_on_and_nothing_to_read_is_refused(tokenize: Callable[..., Any]) -> None:
    encode = tiny_tokenizer("decoder").encode
    rows = [Example(ROWS[0].messages, "a.jsonl:1", ROWS[0].label, weight=2.5)]
    assert [row.weight for row in tokenize(rows, encode).examples] == [2.5]
    empty = Example((Message("user", ""), Message("assistant", "good")), "a.jsonl:7", "good")
    with pytest.raises(DataError, match=r"a\.jsonl:7: the text is empty"):
        tokenize([empty], encode)
    with pytest.raises(DataError, match="no examples"):
        tokenize([], encode)


def test_a_label_that_is_not_known_is_named() -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:0: has the label good; known are bad, odd"):
        tokenize_texts(ROWS, ["bad", "odd"], tiny_tokenizer("bert").encode, 9)
