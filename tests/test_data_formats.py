"""Formats: every one against rows written by hand, and the rows that each refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.data.example import Example, Message, SourceText
from edgetune.data.formats import to_example
from edgetune.data.load import load_data
from edgetune.data.prompt import fill_prompt
from edgetune.data.read import Row
from edgetune.errors import DataError, RecipeError
from edgetune.recipe.data import Data, DataSource

LABELS = ["negative", "neutral", "positive"]


def convert(form: str, values: dict[str, Any], prompt: str | None = "Sentiment of: {text}", **options: Any) -> Example:
    example = convert_or_leave_out(form, values, prompt, **options)
    assert example is not None
    return example


def convert_or_leave_out(
    form: str, values: dict[str, Any], prompt: str | None = "Sentiment of: {text}", **options: Any
) -> Example | None:
    source = DataSource(source="rows.jsonl", format=form, **options)
    asked = {"prompt": prompt} if form in ("text-label", "text-summary") else {}
    labels = {"labels": LABELS} if form == "text-label" else {}
    return to_example(Row("rows.jsonl:7", values), source, Data(train=[source], **asked, **labels))


def refusal(form: str, values: dict[str, Any], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        convert(form, values, **options)
    message = str(caught.value)
    assert message.startswith("rows.jsonl:7: ")
    return message


def conversation(*turns: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in turns)


def test_messages_are_taken_as_they_are() -> None:
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "So long")]
    row = {"messages": [{"role": role, "content": content, "extra": 1} for role, content in turns]}
    assert convert("messages", row) == Example(conversation(*turns), "rows.jsonl:7")


def test_sharegpt_names_become_roles() -> None:
    row = {
        "conversations": [
            {"from": "system", "value": "S"},
            {"from": "human", "value": "H"},
            {"from": "gpt", "value": "G"},
        ]
    }
    assert convert("sharegpt", row).messages == conversation(("system", "S"), ("user", "H"), ("assistant", "G"))


def test_sharegpt_also_knows_the_roles_of_messages() -> None:
    row = {"conversations": [{"from": "user", "value": "U"}, {"from": "assistant", "value": "A"}]}
    assert convert("sharegpt", row).messages == conversation(("user", "U"), ("assistant", "A"))


@pytest.mark.parametrize(
    ("extra", "user"),
    [({}, "Add."), ({"input": ""}, "Add."), ({"input": None}, "Add."), ({"input": "2 and 3"}, "Add.\n\n2 and 3")],
)
def test_alpaca_puts_the_input_below_the_instruction(extra: dict[str, Any], user: str) -> None:
    row = {"instruction": "Add.", "output": "5", **extra}
    assert convert("alpaca", row).messages == conversation(("user", user), ("assistant", "5"))


def test_prompt_and_completion_are_one_exchange() -> None:
    row = {"prompt": "1+1?", "completion": "2"}
    assert convert("prompt-completion", row).messages == conversation(("user", "1+1?"), ("assistant", "2"))


def test_text_and_label_fill_the_prompt() -> None:
    example = convert("text-label", {"text": "I love {braces}", "label": "positive"})
    assert example.messages == conversation(("user", "Sentiment of: I love {braces}"), ("assistant", "positive"))
    assert example.label == "positive"


@pytest.mark.parametrize("value", ["0", 0])
def test_label_maps_compare_values_as_text(value: object) -> None:
    example = convert("text-label", {"text": "bad", "label": value}, labels={"0": "negative", "4": "positive"})
    assert example.label == "negative"
    assert example.messages[-1].content == "negative"


def test_column_maps_name_the_files_columns() -> None:
    row = {"tweet": "fine", "class": "neutral", "text": "not this"}
    example = convert("text-label", row, columns={"text": "tweet", "label": "class"})
    assert example.messages[0].content == "Sentiment of: fine"
    assert example.label == "neutral"


def test_a_label_that_the_map_calls_null_leaves_the_row_out() -> None:
    maps = {"0": "negative", "2": None}
    assert convert_or_leave_out("text-label", {"text": "so-so", "label": 2}, labels=maps) is None
    assert convert("text-label", {"text": "bad", "label": 0}, labels=maps).label == "negative"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (4, "4"),
        (4.0, "4"),
        (4.0, "4.0"),
        (True, "true"),
        (True, "True"),
        (False, "false"),
        (None, "null"),
        (0.5, "0.5"),
    ],
)
def test_a_label_map_writes_a_value_as_python_or_as_json_does(value: object, written: str) -> None:
    assert convert("text-label", {"text": "x", "label": value}, labels={written: "neutral"}).label == "neutral"


def test_without_a_prompt_the_text_stands_alone() -> None:
    example = convert("text-label", {"text": "I {love} it", "label": "positive"}, prompt=None)
    assert example.messages[0] == Message("user", "I {love} it")


PUBMEDQA = {
    "question": "Does {text} help?",
    "context": {"contexts": ["We asked.", "They said {question}."], "labels": ["A", "B"]},
    "year": 2009,
    "final_decision": "neutral",
}


def test_columns_inside_objects_and_further_columns_fill_the_prompt_once() -> None:
    columns = {"text": "context.contexts", "label": "final_decision", "question": "question", "year": "year"}
    prompt = '{question} ({year}) {"json": {}}\n{text}'
    example = convert("text-label", PUBMEDQA, prompt, columns=columns)
    asked = 'Does {text} help? (2009) {"json": {}}\nWe asked.\nThey said {question}.'
    assert example.messages == conversation(("user", asked), ("assistant", "neutral"))
    others = (("question", "Does {text} help?"), ("year", "2009"))
    assert example.source == SourceText("We asked.\nThey said {question}.", prompt, others)
    assert example.content == "Does {text} help?\n2009\nWe asked.\nThey said {question}."


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.b", "dotted"),
        ("turns.0.said", "one"),
        ("turns.said", "one\ntwo"),
        ("turns.0.by.name", "Ann"),
        ("c.d.e", "deep"),
    ],
)
def test_a_dotted_name_reaches_into_objects_and_lists(name: str, text: str) -> None:
    turns = [{"said": "one", "by": {"name": "Ann"}}, {"said": "two"}]
    row = {"a.b": "dotted", "a": {"b": "object"}, "turns": turns, "c": {"d.e": "deep"}, "label": "neutral"}
    assert convert("text-label", row, columns={"text": name}).source == SourceText(text, "Sentiment of: {text}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("context.context", ["no column context.context (did you mean context.contexts?)", "context.labels"]),
        ("context.contexts.7", ["no column context.contexts.7"]),
        ("question.contexts", ["no column question.contexts"]),
    ],
)
def test_a_dotted_name_that_leads_nowhere_lists_the_names_there_are(name: str, words: list[str]) -> None:
    message = refusal("text-label", PUBMEDQA, columns={"text": name, "label": "final_decision"})
    assert [word for word in words if word not in message] == []


def test_a_summary_is_the_answer_and_its_own_reference() -> None:
    example = convert("text-summary", {"text": "Long.", "summary": "L."}, "summarize: {text}")
    assert example.messages == conversation(("user", "summarize: Long."), ("assistant", "L."))
    assert (example.source, example.references) == (SourceText("Long.", "summarize: {text}"), ("L.",))


def test_of_several_summaries_the_first_is_taught_and_all_are_references() -> None:
    row = {"source": ["One.", "Two."], "target": ["A", "B"]}
    example = convert("text-summary", row, "{text}", columns={"text": "source", "summary": "target"})
    assert example.messages == conversation(("user", "One.\nTwo."), ("assistant", "A"))
    assert example.references == ("A", "B")


@given(st.text(), st.text())
def test_a_prompt_is_filled_literally(before: str, text: str) -> None:
    before = before.replace("{text}", "")
    assert fill_prompt(before + "<{text}>", text) == before + "<" + text + ">"


@given(
    st.lists(st.sampled_from(["{text}", "{name}", "{", "}", "x", " "])), st.text("{}text name"), st.text("{}text name")
)
def test_what_fills_a_prompt_is_never_filled_again(parts: list[str], text: str, name: str) -> None:
    places = {"{text}": text, "{name}": name}
    prompt = "|".join(parts)
    assert fill_prompt(prompt, text, {"name": name}) == "|".join(places.get(part, part) for part in parts)


def test_a_missing_column_lists_the_columns_there_are() -> None:
    message = refusal("text-label", {"tweet": "fine", "lable": "neutral"}, columns={"text": "tweet"})
    assert "no column label (did you mean lable?)" in message
    assert "there are tweet, lable" in message


def test_a_mapped_optional_column_must_be_there() -> None:
    row = {"instruction": "Add.", "output": "5"}
    assert "no column context" in refusal("alpaca", row, columns={"input": "context"})


def test_an_unknown_label_lists_the_known_ones() -> None:
    message = refusal("text-label", {"text": "x", "label": "postive"})
    assert "unknown label 'postive' (did you mean positive?)" in message
    assert "negative, neutral, positive" in message
    assert 'such as {"0": negative}' in message


def test_a_label_outside_the_label_map_lists_the_maps_values() -> None:
    message = refusal("text-label", {"text": "x", "label": 3}, labels={"0": "negative", "4": "positive"})
    assert "unknown label '3'" in message
    assert "known are 0, 4" in message


def turn(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def gpt_turn(speaker: str, value: str) -> dict[str, object]:
    return {"from": speaker, "value": value}


@pytest.mark.parametrize(
    ("form", "row", "words"),
    [
        ("messages", {"messages": "Hi"}, ["messages", "list of turns", "'Hi'"]),
        ("messages", {"messages": []}, ["list of turns"]),
        ("messages", {"messages": None}, ["list of turns", "None"]),
        ("messages", {"messages": [gpt_turn("human", "Hi")]}, ["turn 1", "role and content", "format sharegpt"]),
        ("sharegpt", {"conversations": [turn("user", "Hi")]}, ["turn 1", "from and value", "format messages"]),
        ("messages", {"messages": [turn("human", "Hi")]}, ["turn 1", "unknown role 'human'", "user, assistant"]),
        ("sharegpt", {"conversations": [gpt_turn("bard", "Hi")]}, ["unknown role 'bard'", "human, gpt"]),
        ("messages", {"messages": [turn("user", None)]}, ["turn 1, content", "must hold text", "None"]),
        ("messages", {"messages": [turn("user", "Hi")]}, ["ends with role user"]),
        ("messages", {"messages": [turn("assistant", "Hi")]}, ["before the first user turn"]),
        ("alpaca", {"instruction": "Add.", "input": 5, "output": "5"}, ["input must hold text", "5"]),
        ("prompt-completion", {"prompt": "1+1?", "completion": 2}, ["completion must hold text", "2"]),
        ("text-label", {"text": ["a", 1], "label": "neutral"}, ["text must hold text", "['a', 1]"]),
        ("text-summary", {"text": "a", "summary": []}, ["summary must be a text or a list of texts, not []"]),
        ("text-summary", {"text": "a", "summary": None}, ["summary must be a text", "None"]),
    ],
)
def test_a_row_that_a_format_cannot_read_is_refused_by_line(form: str, row: dict[str, Any], words: list[str]) -> None:
    message = refusal(form, row)
    assert [word for word in words if word not in message] == []


def classify_data(*sources: DataSource) -> Data:
    return Data(train=list(sources), labels=LABELS, prompt="Sentiment of: {text}")


def test_examples_of_several_sources_come_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one", "label": "neutral"}\n{"text": "two", "label": "positive"}\n')
    (tmp_path / "b.csv").write_text("text,label\nthree,0\n")
    first = DataSource(source=str(tmp_path / "a.jsonl"), format="text-label")
    second = DataSource(source=str(tmp_path / "b.csv"), format="text-label", labels={"0": "negative"})
    examples = load_data(classify_data(first, second), "classify").train
    assert [example.label for example in examples] == ["neutral", "positive", "negative"]
    assert examples[2].where == f"{tmp_path / 'b.csv'}:2"


def test_the_shipped_demo_data_fit_their_recipe() -> None:
    from edgetune.recipe.load import load_recipe

    data = load_recipe("demo").data
    if not all(Path(source.source).is_file() for source in [*data.train, *data.eval]):
        pytest.skip("recipes/data/ is not there")
    assert {example.label for example in load_data(data, "classify").train} == set(data.labels)
    assert {example.label for example in load_data(data, "classify").evaluation} == set(data.labels)


def test_two_hundred_real_tweets_become_examples(shared_data: Path) -> None:
    path = str(shared_data / "tweet_sentiment" / "train.tsv")
    names = {"0": "negative", "1": "neutral", "2": "positive"}
    source = DataSource(source=path, split="train[:200]", format="text-label", labels=names)
    examples = load_data(classify_data(source), "classify").train
    assert len(examples) == 200
    assert examples[0].label == "negative"
    assert examples[0].messages[0].content.startswith("Sentiment of: dear @user the newOoffice for Mac")


def test_one_bad_row_among_many_is_named_by_file_and_line(tmp_path: Path) -> None:
    rows = [{"text": "fine", "label": "neutral"}] * 4 + [{"text": "fine", "label": "mixed"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = DataSource(source=str(path), format="text-label")
    with pytest.raises(DataError, match=r"rows\.jsonl:5: unknown label 'mixed'"):
        load_data(classify_data(source), "classify")


def test_no_source_at_all_is_an_error() -> None:
    source = DataSource(source="a.jsonl", format="text-label")
    with pytest.raises(DataError, match="no examples"):
        load_data(classify_data(source).model_copy(update={"train": []}), "classify")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": {"txt": "tweet"}}, ["a.jsonl", "txt (did you mean text?)", "text, label"]),
        ({"labels": {"0": "negativ"}}, ["a.jsonl", "negativ (did you mean negative?)", "negative, neutral, positive"]),
    ],
)
def test_a_map_that_means_nothing_is_refused_before_reading(options: dict[str, Any], words: list[str]) -> None:
    source = DataSource(source="a.jsonl", format="text-label", **options)
    with pytest.raises(RecipeError) as caught:
        load_data(classify_data(source), "classify")
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_further_column_must_be_one_that_the_prompt_asks_for() -> None:
    source = DataSource(source="a.jsonl", format="text-label", columns={"question": "q"})
    with pytest.raises(RecipeError, match=r"columns maps question, but .*put \{question\} into data\.prompt"):
        load_data(classify_data(source), "classify")


def test_every_source_must_give_what_the_prompt_asks_for() -> None:
    first = DataSource(source="a.jsonl", format="text-label", columns={"question": "q"})
    second = DataSource(source="b.jsonl", format="text-label")
    data = Data(train=[first, second], labels=LABELS, prompt='{question} {text} {"form": {other}}')
    with pytest.raises(RecipeError, match=r"b\.jsonl: data\.prompt contains \{question\}"):
        load_data(data, "classify")


def test_a_format_that_the_task_cannot_read_is_refused() -> None:
    source = DataSource(source="a.jsonl", format="sharegpt")
    with pytest.raises(RecipeError, match=r"a\.jsonl: format is sharegpt, which task classify cannot read"):
        load_data(classify_data(source), "classify")


def test_a_suite_reads_dotted_columns_and_leaves_out_what_its_label_map_calls_null(tmp_path: Path) -> None:
    from edgetune.judging.suites.items import read_items
    from edgetune.judging.suites.suite import Suite, SuiteSource

    rows = [{"said": {"text": f"text {number}"}, "stars": number} for number in (1, 3, 5)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"text": "said.text", "label": "stars"}
    maps = {"1": "negative", "3": None, "5": "positive"}
    source = SuiteSource(source=str(path), format="text-label", columns=columns, labels=maps)
    suite = Suite(name="stars", task="classify", data=[source], labels=["negative", "positive"], prompt="{text}?")
    assert [(item.text, item.gold) for item in read_items(suite)] == [("text 1", "negative"), ("text 5", "positive")]


def test_texts_with_summaries_calibrate_as_texts(tmp_path: Path, smollm2_gguf: Path) -> None:
    from edgetune.gguf.calibrate import read_tokens
    from edgetune.models.load import open_tokenizer
    from edgetune.models.locate import locate_model

    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "A bill.", "summary": "B."}) + "\n")
    tokenizer = open_tokenizer(locate_model(str(smollm2_gguf)))
    assert read_tokens(path, tokenizer, 100) == tokenizer.encode("A bill.\n\n")


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("text-label", {"text": "a \ud83d alone", "label": "neutral"}),
        ("text-summary", {"text": ["fine", "\udc00"], "summary": "x"}),
        ("messages", {"messages": [{"role": "user", "content": "\ud83d"}, {"role": "assistant", "content": "x"}]}),
    ],
)
def test_half_a_character_is_refused_because_no_tokenizer_reads_it(form: str, values: dict[str, Any]):
    message = refusal(form, values)
    assert message.startswith("rows.jsonl:7: ")
    assert "contains an unpaired surrogate (\\ud" in message
