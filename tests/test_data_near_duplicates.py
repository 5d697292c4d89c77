"""When texts count as the same, and as nearly the same, against a comparison of all with all."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.data.identity import normalize_text
from edgetune.data.near_duplicates import NearDuplicate, find_near_duplicates, group_near_duplicates

SENTENCES = st.lists(
    st.lists(st.sampled_from("abcde"), max_size=12).map(" ".join) | st.text("日本語が", max_size=6), max_size=8
)


def pairs(text: str) -> set[tuple[str, ...]]:
    words = text.split() if " " in text or text.isascii() else list(text)
    return {tuple(words)} if len(words) == 1 else set(pairwise(words))


def all_with_all(known: list[str], new: list[str]) -> list[NearDuplicate]:
    found = []
    for place, text in enumerate(new):
        for number, other in enumerate(known):
            union = pairs(text) | pairs(other)
            shared = pairs(text) & pairs(other)
            if union and 5 * len(shared) >= 4 * len(union):
                found.append(NearDuplicate(number, place, len(shared) / len(union)))
                break
    return found


@settings(deadline=None)
@given(SENTENCES, SENTENCES)
def test_the_search_finds_what_comparing_all_finds(known: list[str], new: list[str]) -> None:
    assert find_near_duplicates(known, new) == all_with_all(known, new)


@settings(deadline=None)
@given(SENTENCES)
def test_groups_are_linked_by_near_duplicates(texts: list[str]) -> None:
    groups = group_near_duplicates(texts)
    linked = [{place} for place in range(len(texts))]
    for one, text in enumerate(texts):
        for other in range(one):
            if all_with_all([texts[other]], [text]):
                together = linked[one] | linked[other]
                for place in together:
                    linked[place] = together
    assert groups == [min(group) for group in linked]


def test_the_search_finds_edited_texts_among_many() -> None:
    chance = random.Random(0)
    vocabulary = [f"w{number}" for number in range(300)]
    known = [" ".join(chance.choices(vocabulary, k=chance.randrange(5, 60))) for _ in range(300)]
    new = []
    for text in known[:100]:
        words = text.split()
        for _ in range(chance.randrange(4)):
            words[chance.randrange(len(words))] = chance.choice(vocabulary)
        new.append(" ".join(words))
    found = find_near_duplicates(known, new)
    assert found == all_with_all(known, new)
    assert 30 < len(found) < 100


def test_one_word_of_twenty_may_be_another_and_of_five_may_not() -> None:
    twenty = [f"w{number}" for number in range(21)]
    other = [*twenty[:10], "x", *twenty[11:]]
    assert find_near_duplicates([" ".join(twenty)], [" ".join(other)]) == [NearDuplicate(0, 0, 18 / 22)]
    assert find_near_duplicates(["i feel so happy today"], ["i feel so angry today"]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It's  GREAT!", "it’s great"),
        ("ﬁne — day", "Fine day."),
        ("Straße", "STRASSE"),
        ("１２３ go", "123 go"),
        ("a\u00a0b\n", "A b"),
        ("#happy @user", "happy user"),
    ],
)
def test_case_punctuation_and_spaces_do_not_tell_texts_apart(one: str, other: str) -> None:
    assert normalize_text(one) == normalize_text(other)


@pytest.mark.parametrize(
    ("one", "other"), [("ok 🙂", "ok 😡"), ("!!!", "..."), ("c+", "c"), ("हिन्दी", "हिनदी"), ("a b", "ab")]
)
def test_what_carries_meaning_tells_texts_apart(one: str, other: str) -> None:
    assert normalize_text(one) != normalize_text(other)


@settings(deadline=None)
@given(st.lists(st.text("abßéñ日🙂", min_size=1), min_size=1), st.sampled_from(["", "!", " .", "?! "]))
def test_a_text_is_the_same_in_capitals_with_more_punctuation(words: list[str], end: str) -> None:
    assert (
        normalize_text("  ".join(words).upper() + end) == normalize_text(" ".join(words)) == " ".join(words).casefold()
    )
