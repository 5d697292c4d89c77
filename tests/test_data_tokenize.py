"""Token ids and the loss mask: what is supervised, what is cut, and how a batch is padded."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.collate import collate

from edgetune.data.example import Example, Message
from edgetune.data.template import ChatTemplate, load_template
from edgetune.data.tokenize import TokenizedData, TokenizedExample, tokenize_examples
from edgetune.errors import DataError
from edgetune.recipe.data import Percentile

LETTERS = ChatTemplate(
    "{% for message in messages %}{{ '<' if message.role == 'user' else '>' }}{{ message.content }}"
    "{{ eos_token if message.role == 'assistant' }}{% endfor %}{{ '>' if add_generation_prompt }}",
    bos_token="",
    eos_token=".",
)
"""A template of single letters: with `ord` as tokenizer, lengths can be counted by eye."""


def encode_letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def example(*contents: str, where: str = "a.jsonl:1") -> Example:
    turns = tuple(Message(("user", "assistant")[number % 2], content) for number, content in enumerate(contents))
    return Example(turns, where)


def supervised(tokenized: TokenizedExample) -> str:
    return "".join(chr(label) for label in tokenized.labels if label != -100)


def count_tokens(data: TokenizedData) -> tuple[int, int]:
    """Tokens of all examples, and how many of them are supervised."""
    labels = [label for example in data.examples for label in example.labels]
    return len(labels), len(labels) - labels.count(-100)


@pytest.fixture
def smollm2(smollm2_tokenizer):
    template = load_template(
        "chat",
        tokenizer_template=smollm2_tokenizer.chat_template,
        bos_token=smollm2_tokenizer.bos_token,
        eos_token=smollm2_tokenizer.eos_token,
    )
    return template, lambda text: smollm2_tokenizer.encode(text, add_special_tokens=False)


def test_the_mask_covers_exactly_the_answers() -> None:
    data = tokenize_examples([example("ab", "cd", "e", "f")], LETTERS, encode_letters, 100)
    (tokenized,) = data.examples
    assert "".join(map(chr, tokenized.input_ids)) == "<ab>cd.<e>f."
    assert tokenized.labels == (*[-100] * 4, ord("c"), ord("d"), ord("."), *[-100] * 3, ord("f"), ord("."))
    assert (*count_tokens(data), data.truncated, data.dropped) == (12, 5, 0, 0)


@pytest.mark.parametrize("answer", ["Paris.", "\n\nParis", " Paris", "日本語 🙂", ""])
def test_a_real_prompt_has_the_ids_that_inference_sends(smollm2_tokenizer, smollm2, answer: str) -> None:
    template, encode = smollm2
    row = example("The capital of France?", answer)
    (tokenized,) = tokenize_examples([row], template, encode, 512).examples
    prompt = smollm2_tokenizer.apply_chat_template(
        [{"role": "user", "content": "The capital of France?"}], add_generation_prompt=True
    )["input_ids"]
    assert list(tokenized.input_ids[: len(prompt)]) == prompt
    assert list(tokenized.labels[: len(prompt)]) == [-100] * len(prompt)
    assert tokenized.labels[len(prompt) :] == tokenized.input_ids[len(prompt) :]
    assert smollm2_tokenizer.decode(tokenized.input_ids[len(prompt) :]) == f"{answer}<|im_end|>\n"


def test_an_ordinary_conversation_has_the_ids_of_transformers(smollm2_tokenizer, smollm2) -> None:
    template, encode = smollm2
    row = example("What is 17 + 25?", "It is 42.", "Und auf Deutsch?", "Zweiundvierzig 🙂")
    (tokenized,) = tokenize_examples([row], template, encode, 512).examples
    turns = [{"role": message.role, "content": message.content} for message in row.messages]
    assert list(tokenized.input_ids) == smollm2_tokenizer.apply_chat_template(turns)["input_ids"]


def test_long_examples_are_cut_at_the_end_and_dropped_without_an_answer() -> None:
    rows = [example("ab", "cd"), example("ab", "cdefgh"), example("abcdefgh", "c")]
    data = tokenize_examples(rows, LETTERS, encode_letters, 7)
    assert [supervised(tokenized) for tokenized in data.examples] == ["cd.", "cde"]
    assert [len(tokenized.input_ids) for tokenized in data.examples] == [7, 7]
    assert (data.max_length_tokens, data.truncated, data.dropped, data.dropped_rows) == (7, 1, 1, ("a.jsonl:1",))
    assert count_tokens(data) == (14, 6)


def test_examples_that_are_all_too_long_say_what_would_do() -> None:
    rows = [example("a" * 30, "b"), example("a" * 20, "b")]
    with pytest.raises(
        DataError, match="all 2 examples are longer than max_length, 10 tokens; the shortest needs 24"
    ) as caught:
        tokenize_examples(rows, LETTERS, encode_letters, 10)
    assert "raise data.max_length" in str(caught.value)


def test_a_row_that_the_template_refuses_is_named() -> None:
    refusing = ChatTemplate("{{ raise_exception('no system role') }}", bos_token="", eos_token="")
    with pytest.raises(DataError, match=r"b\.jsonl:9: .*no system role"):
        tokenize_examples([example("a", "b", where="b.jsonl:9")], refusing, encode_letters, 10)


@pytest.mark.parametrize("limit", [10, Percentile(percentile=80)])
def test_no_examples_is_an_error(limit: int | Percentile) -> None:
    with pytest.raises(DataError, match="no examples"):
        tokenize_examples([], LETTERS, encode_letters, limit)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    tenths=st.integers(1, 1000),
)
def test_a_percentile_is_the_smallest_length_that_the_share_fits_into(lengths: list[int], tenths: int) -> None:
    rows = [example("", "x" * length) for length in lengths]
    data = tokenize_examples(rows, LETTERS, encode_letters, Percentile(percentile=tenths / 10))
    whole = [length + 3 for length in lengths]

    def fits(limit: int) -> bool:
        return 1000 * sum(length <= limit for length in whole) >= tenths * len(whole)

    assert fits(data.max_length_tokens)
    assert not fits(data.max_length_tokens - 1)


def test_a_percentile_is_not_moved_by_rounding() -> None:
    rows = [example("", "x" * length) for length in range(1, 251)]
    assert math.ceil(250 * 64.4 / 100) == 162  # 64.4 % of 250 are 161
    assert tokenize_examples(rows, LETTERS, encode_letters, Percentile(percentile=64.4)).max_length_tokens == 161 + 3


def test_a_batch_is_padded_on_the_right() -> None:
    pytest.importorskip("torch")
    batch = [TokenizedExample((5, 6, 7), (-100, 6, 7)), TokenizedExample((8,), (8,))]
    tensors = {name: tensor.tolist() for name, tensor in collate(batch, pad_token_id=0).items()}
    assert tensors == {
        "input_ids": [[5, 6, 7], [8, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "labels": [[-100, 6, 7], [8, -100, -100]],
    }


@settings(deadline=None)  # the first example imports torch
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), multiple_of=st.sampled_from([1, 8, 64]))
def test_padding_adds_nothing_that_counts(lengths: list[int], multiple_of: int) -> None:
    torch = pytest.importorskip("torch")
    batch = [TokenizedExample(tuple(range(1, length + 1)), tuple(range(1, length + 1))) for length in lengths]
    tensors = collate(batch, pad_token_id=0, multiple_of=multiple_of)
    width = tensors["input_ids"].shape[1]
    assert width % multiple_of == 0
    assert max(lengths) <= width < max(lengths) + multiple_of
    assert all(tensor.dtype == torch.int64 and tensor.shape == (len(batch), width) for tensor in tensors.values())
    assert tensors["attention_mask"].sum(dim=1).tolist() == lengths
    assert torch.equal(tensors["labels"] != -100, tensors["attention_mask"] == 1)
    assert torch.equal(tensors["input_ids"] != 0, tensors["attention_mask"] == 1)
