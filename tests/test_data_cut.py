"""Texts are cut to a number of tokens; the prompt around them, and the references of summaries, stay whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_tasks import tiny_tokenizer

from edgetune.data.cut import cut_sources, cut_targets, first_tokens
from edgetune.data.example import Example, Message, SourceText
from edgetune.errors import DataError
from edgetune.recipe.data import Percentile

PROMPT = "Why {text}? {who}:"


def words(text: str) -> list[tuple[int, int]]:
    """A token of each word, with the space before it."""
    places: list[tuple[int, int]] = []
    end = 0
    for word in text.split(" "):
        places.append((end, end + len(word) + (end > 0)))
        end = places[-1][1]
    return places if text else []


def example(text: str, answer: str = "A B C") -> Example:
    source = SourceText(text, PROMPT, (("who", "{text}"),))
    messages = (Message("user", source.filled), Message("assistant", answer))
    return Example(messages, "a.jsonl:1", source=source, references=(answer, "another"))


def test_the_text_is_cut_and_the_prompt_filled_anew() -> None:
    cut = cut_sources([example("one two three four"), example("one")], words, 2)
    assert [each.messages[0].content for each in cut.examples] == ["Why one two? {text}:", "Why one? {text}:"]
    assert [each.source and each.source.text for each in cut.examples] == ["one two", "one"]
    assert (cut.limit_tokens, cut.lengths, cut.cut, cut.lost_tokens) == (2, (4, 1), 1, 2)


def test_a_percentile_is_of_the_texts_alone() -> None:
    rows = [example(" ".join("x" * length)) for length in (1, 2, 3, 4, 9)]
    cut = cut_sources(rows, words, Percentile(percentile=80))
    assert (cut.limit_tokens, cut.cut, cut.lost_tokens) == (4, 1, 5)
    assert cut_sources([rows[4]], words, cut.limit_tokens).examples[0].content == "{text}\nx x x x"


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"no examples, so percentile 80 has no length"):
        cut_sources([], words, Percentile(percentile=80))


def test_answers_are_cut_and_references_are_not() -> None:
    cut = cut_targets([example("one two three", "A B C D")], words, 3)
    (each,) = cut.examples
    assert (each.answer, each.references) == ("A B C", ("A B C D", "another"))
    assert each.messages[0].content == "Why one two three? {text}:"


def offsets_of(tokenizer: Any):
    return lambda text: tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).offsets


@pytest.fixture(scope="module", params=["bert", "t5", "decoder"])
def offsets(request: pytest.FixtureRequest):
    return offsets_of(tiny_tokenizer(request.param))


BYTES = offsets_of(tiny_tokenizer("decoder"))


@settings(deadline=None)
@given(st.text("sun rain🙂é日", max_size=30), st.integers(1, 12))
def test_what_is_kept_is_a_beginning_of_at_most_so_many_tokens(text: str, count: int) -> None:
    kept = first_tokens(text, BYTES, count)
    assert text.startswith(kept)
    assert len(BYTES(kept)) <= count
    if len(BYTES(text)) <= count:
        assert kept == text


def test_a_cut_keeps_as_many_tokens_as_it_may(offsets) -> None:
    text = "the sun of joy with much cake and more love so so so"
    whole = offsets(text)
    for count in range(1, len(whole)):
        kept = first_tokens(text, offsets, count)
        assert len(offsets(kept)) <= count
        assert kept == text[: whole[count - 1][1]] or len(offsets(text[: whole[count - 1][1]])) > count


def test_a_character_of_several_tokens_is_not_torn() -> None:
    assert len(BYTES("🙂")) == 4
    assert first_tokens("a🙂b", BYTES, 3) == "a"
    assert first_tokens("a🙂b", BYTES, 5) == "a🙂"
    assert first_tokens("🙂", BYTES, 2) == ""


def test_smollm2_keeps_its_first_tokens(smollm2_tokenizer) -> None:
    offsets = offsets_of(smollm2_tokenizer)
    text = "SECTION 1. SHORT TITLE.\n\nThis Act may be cited as the Act of 2009. " * 5
    kept = first_tokens(text, offsets, 40)
    encode = smollm2_tokenizer.encode
    assert encode(kept) == encode(text)[:40]
