"""The demo's data keeps what its README promises."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations

import pytest

from edgetune import assets

LABELS = {"negative", "neutral", "positive"}


def rows(half: str) -> list[dict[str, str]]:
    file = assets.shipped("recipes") / "data" / f"sentiment-demo-{half}.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() or letter == "'" else " " for letter in text.lower()).split()


def overlap(first: set, second: set) -> float:
    return len(first & second) / len(first | second) if first and second else 0.0


@pytest.mark.parametrize(("half", "per_label"), [("train", 100), ("heldout", 30)])
def test_labels_are_balanced_overall_and_in_every_domain(half: str, per_label: int):
    assert Counter(row["label"] for row in rows(half)) == dict.fromkeys(LABELS, per_label)
    by_domain = Counter((row["domain"], row["label"]) for row in rows(half))
    domains = {domain for domain, _ in by_domain}
    assert len(domains) >= 10
    assert all(len({by_domain[domain, label] for label in LABELS}) == 1 for domain in domains)


def test_no_two_texts_are_near_duplicates():
    texts = [words(row["text"]) for half in ("train", "heldout") for row in rows(half)]
    triples = [set(zip(text, text[1:], text[2:], strict=False)) for text in texts]
    for first, second in combinations(range(len(texts)), 2):
        assert overlap(set(texts[first]), set(texts[second])) <= 0.5
        assert overlap(triples[first], triples[second]) <= 0.3


def test_no_beginning_is_a_template():
    beginnings = Counter(tuple(words(row["text"])[:2]) for half in ("train", "heldout") for row in rows(half))
    assert max(beginnings.values()) <= 3


@pytest.mark.parametrize("half", ["train", "heldout"])
def test_length_does_not_tell_the_label(half: str):
    means = [
        sum(len(words(row["text"])) for row in rows(half) if row["label"] == label)
        / sum(row["label"] == label for row in rows(half))
        for label in LABELS
    ]
    assert max(means) / min(means) < 1.2
    lengths = [len(words(row["text"])) for row in rows(half)]
    assert min(lengths) <= 6
    assert max(lengths) >= 25
