"""Formulas of written answers: SQuAD's exact match and token F1, JSON and its schemas, length, likelihood."""

from __future__ import annotations

import json
import math
import socket
from collections import Counter
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.errors import DataError, RecipeError
from edgetune.metrics.exact_match import exact_match
from edgetune.metrics.json_schema import schema_check
from edgetune.metrics.json_text import is_json, parse_json
from edgetune.metrics.length import count_characters, count_words
from edgetune.metrics.registry import METRICS
from edgetune.metrics.samples import Sample, Samples
from edgetune.metrics.squad import normalize_answer
from edgetune.metrics.token_f1 import answer_words, token_f1

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}

words = st.lists(st.sampled_from(["the", "cat", "Cat!", "sat", "on", "a", "mat,"]), max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The Denver  Broncos!", "denver broncos"),
        ("a theory of an anthem", "theory of anthem"),
        ("U.S.A.", "usa"),
        ("well-known", "wellknown"),
        ("\tBeyoncé\n", "beyoncé"),
        ("the a an", ""),
        ("“quoted”", "“quoted”"),
    ],
)
def test_answers_are_normalized_as_squad_does_it(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized


def test_the_published_example_of_squads_evaluation_gives_two_thirds() -> None:
    predictions = ["1976", "Beyonce", "climate change"]
    references = [["1976"], ["Beyoncé and Bruno Mars"], ["climate change"]]
    pairs = list(zip(predictions, references, strict=True))
    assert [exact_match(*pair) for pair in pairs] == [True, False, True]
    assert [token_f1(*pair) for pair in pairs] == [1, 0, 1]


def test_token_f1_by_hand() -> None:
    # 2 of the 3 words are right, and 2 of the 4 expected ones are there: 2 * (2/3 * 2/4) / (2/3 + 2/4)
    assert token_f1("the Denver Broncos won", ["Denver Broncos of Colorado"]) == pytest.approx(4 / 7)
    assert token_f1("yes yes yes", ["yes"]) == pytest.approx(0.5)
    assert token_f1("", ["The"]) == 1
    assert token_f1("", ["something"]) == token_f1("something", [""]) == 0


@pytest.mark.parametrize(
    ("text", "reference", "f1"),
    [
        ("“Иван Грозный”", "«Иван Грозный»", 1),
        ("Иван Грозный, царь", "Иван Васильевич", 2 / 5),
        ("北京大学。", "北京大學", 3 / 4),  # 3 of 4 characters on both sides
        ("2020年", "2020 年", 1),
        ("¿El niño?", "el nin\u0303o", 1),
        ("यह सच है।", "यह सच नहीं है", 2 * 3 / 7),
        ("القاهرة، مصر", "القاهرة", 2 / 3),
        ("ภาษา", "ภาษี", 2 * 2 / 7),  # ภ า ษ า and ภ า ษี: a mark belongs to its letter
    ],
)
def test_token_f1_reads_every_script(text: str, reference: str, f1: float) -> None:
    assert token_f1(text, [reference]) == pytest.approx(f1)


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=40))
def test_the_words_of_ascii_are_squads(text: str) -> None:
    assert answer_words(text) == normalize_answer(text).split()


def test_the_best_of_several_references_counts() -> None:
    references = ["Santa Clara, California", "Levi's Stadium", "in the Levi's Stadium at Santa Clara"]
    assert exact_match("levis stadium", references)
    assert token_f1("Stadium in Santa Clara", references) == pytest.approx(2 * 4 / (4 + 6))


@given(words, words)
def test_token_f1_is_the_harmonic_mean_of_precision_and_recall(text: str, reference: str) -> None:
    found = token_f1(text, [reference])
    assert found == token_f1(reference, [text])
    assert (found == 1) == (Counter(normalize_answer(text).split()) == Counter(normalize_answer(reference).split()))
    said, right = normalize_answer(text).split(), normalize_answer(reference).split()
    shared = sum(min(said.count(word), right.count(word)) for word in set(said))
    if shared:
        precision, recall = shared / len(said), shared / len(right)
        assert found == pytest.approx(2 * precision * recall / (precision + recall))


def test_an_item_without_a_reference_is_refused() -> None:
    for measure in (exact_match, token_f1):
        with pytest.raises(ValueError, match="no reference"):
            measure("x", [])


@pytest.mark.parametrize("text", ['{"a": [1, 2.5e3, null]}', "  [ ]\n", '"x"', "42", "null", '{"a": 1, "a": 2}'])
def test_json_of_any_kind_is_valid(text: str) -> None:
    assert is_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "{'a': 1}",
        '{"a": 1,}',
        '{"a": NaN}',
        "-Infinity",
        '{"a": 1} and more',
        '```json\n{"a": 1}\n```',
        'Here it is: {"a": 1}',
        "[" * 100_000 + "]" * 100_000,
        '"a\nb"',
    ],
)
def test_what_a_program_could_not_read_as_json_is_not_valid(text: str) -> None:
    assert not is_json(text)
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_a_number_of_very_many_digits_is_json() -> None:
    assert is_json("[" + "9" * 10_000 + "]")
    assert parse_json("9" * 30) == int("9" * 30)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_whatever_is_written_as_json_is_read_back(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@given(
    st.dictionaries(
        st.sampled_from(["name", "age", "other"]), st.none() | st.integers(-2, 2) | st.text(max_size=2), max_size=3
    )
)
def test_schema_match_agrees_with_jsonschema(value: dict[str, Any]) -> None:
    assert schema_check(PERSON)(json.dumps(value)) == jsonschema.Draft202012Validator(PERSON).is_valid(value)


def test_what_is_no_json_fits_no_schema() -> None:
    assert not schema_check({})('```json\n{"name": "Ada"}\n```')
    assert schema_check({})("3")


def test_the_draft_is_the_one_that_the_schema_names() -> None:
    tuple_schema = {"items": [{"type": "string"}]}
    older = schema_check({"$schema": "http://json-schema.org/draft-07/schema#", **tuple_schema})
    assert older('["a", 1]')
    assert not older("[1]")
    with pytest.raises(RecipeError, match=r"json_schema\.items is not a JSON schema"):
        schema_check(tuple_schema)


def test_a_schema_may_refer_to_its_own_parts_and_to_itself() -> None:
    check = schema_check(
        {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    )
    assert check("[[], [[]]]")
    assert not check("[[1]]")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "strange"}, "json_schema.type is not a JSON schema"),
        ({"properties": {"a": {"minimum": "0"}}}, "json_schema.properties.a.minimum"),
        ({"$ref": "#/$defs/nowhere"}, "a reference that leads nowhere"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"pattern": "("}, "json_schema.pattern is not a JSON schema"),
        ({"$schema": 7}, "json_schema.$schema must be the address of a draft"),
    ],
)
def test_a_schema_that_cannot_be_meant_is_refused(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        schema_check(schema)
    assert words in str(caught.value)


def test_a_loop_that_only_some_answers_reach_is_the_schemas_fault_and_a_deep_answer_is_not() -> None:
    check = schema_check({"properties": {"a": {"$ref": "#/properties/a"}}})
    assert check('{"b": 1}')
    with pytest.raises(RecipeError, match="without end"):
        check('{"a": 1}')
    tree = schema_check({"type": "array", "items": {"$ref": "#"}})
    assert tree("[[[]]]")
    assert not tree("[" * 900 + "]" * 900)


def test_a_schema_elsewhere_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(socket, "create_connection", lambda *arguments, **_: asked.append(arguments))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **_: asked.append(arguments))
    check = schema_check({"properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}})
    with pytest.raises(RecipeError, match="a reference that leads nowhere"):
        check('{"a": 1}')
    assert not asked


def test_length_is_counted_in_words_and_in_characters() -> None:
    assert count_words(" two\n\twords ") == 2
    assert count_words("") == 0
    assert count_characters("né 🙂") == 4


def predicted(name: str, nats: list[float], tokens: list[int], sizes: list[int]) -> float:
    """A metric of texts of so many tokens and bytes."""
    rows = zip(nats, tokens, sizes, strict=True)
    samples = [Sample(str(one), nll_nats=one, nll_tokens=count, nll_bytes=size) for one, count, size in rows]
    return METRICS[name].compute(Samples(tuple(samples))).value


def test_perplexity_weighs_texts_by_their_tokens() -> None:
    # A model that gives each of 4 tokens 1/2 and each of 2 tokens 1/8 is as unsure as one that gives 2^(-10/6).
    nats = [4 * math.log(2), 2 * math.log(8)]
    assert math.exp(predicted("perplexity", nats, [4, 2], [1, 1])) == pytest.approx(2 ** (10 / 6))


def test_bits_per_byte_does_not_ask_how_many_tokens_there_are() -> None:
    assert predicted("bits_per_byte", [8 * math.log(2), 4 * math.log(2)], [1, 1], [4, 2]) == pytest.approx(2)


def test_likelihoods_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="no text has a token"):
        predicted("perplexity", [0.0], [0], [1])
    with pytest.raises(DataError, match="all texts are empty"):
        predicted("bits_per_byte", [0.0], [1], [0])
