"""Items of every task and format, with their ids and clusters, and what the worst files are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgetune.data.load import load_data
from edgetune.errors import DataError, EdgetuneError, RecipeError
from edgetune.judging.suites.items import Item, hash_items, read_items
from edgetune.judging.suites.suite import Suite
from edgetune.recipe.data import Data, DataSource

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "2"},
]


def suite_of(folder: Path, rows: list[Any], form: str, task: str, **settings: Any) -> Suite:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {key: settings.pop(key) for key in ("columns", "id", "labels_map", "cap", "weight") if key in settings}
    if "labels_map" in source:
        source["labels"] = source.pop("labels_map")
    data = [{"source": str(path), "format": form, **source}]
    return Suite.model_validate({"name": "little", "task": task, "data": data, **settings})


def items_of(folder: Path, rows: list[Any], form: str, task: str, **settings: Any) -> tuple[Item, ...]:
    return read_items(suite_of(folder, rows, form, task, **settings))


def refusal(
    folder: Path, rows: list[Any], form: str, task: str, kind: type[EdgetuneError] = DataError, **settings: Any
) -> str:
    with pytest.raises(kind) as caught:
        items_of(folder, rows, form, task, **settings)
    return str(caught.value)


def said(item: Item) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in item.messages]


def test_a_prompt_may_have_no_reference_one_or_several(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Name a colour."},
        {"prompt": "2 + 2?", "reference": "4"},
        {"prompt": "Synonym of big?", "reference": ["large", "huge"]},
        {"prompt": "Anything.", "reference": None},
        {"prompt": "Anything else.", "reference": ""},
    ]
    items = items_of(tmp_path, rows, "prompt", "generate")
    assert [item.references for item in items] == [(), ("4",), ("large", "huge"), (), ()]
    assert said(items[1]) == [("user", "2 + 2?")]
    assert (items[1].text, items[1].id, items[1].where, items[1].gold) == ("2 + 2?", "2", "rows.jsonl:2", None)


def test_columns_are_mapped_and_dotted_names_reach_in(tmp_path: Path) -> None:
    rows = [{"q": {"body": "Why?", "answers": ["because", "so"]}, "meta": {"id": "a-1"}, "sys": "Be kind."}]
    columns = {"prompt": "q.body", "reference": "q.answers", "system": "sys"}
    (item,) = items_of(tmp_path, rows, "prompt", "generate", columns=columns, id="meta.id")
    assert (item.id, item.text, item.references) == ("a-1", "Why?", ("because", "so"))
    assert said(item) == [("system", "Be kind."), ("user", "Why?")]


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("prompt-completion", {"prompt": "Two?", "completion": "2"}),
        ("alpaca", {"instruction": "Two?", "input": "", "output": "2"}),
        ("messages", {"messages": TURNS[3:]}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "Two?"}, {"from": "gpt", "value": "2"}]}),
    ],
)
def test_the_last_answer_is_the_reference_and_what_is_before_it_is_asked(
    tmp_path: Path, form: str, row: dict[str, Any]
) -> None:
    (item,) = items_of(tmp_path, [row], form, "generate")
    assert said(item) == [("user", "Two?")]
    assert (item.text, item.references) == ("Two?", ("2",))
    (scored,) = items_of(tmp_path, [row], form, "perplexity")
    assert said(scored) == [("user", "Two?")]
    assert (scored.text, scored.references) == ("2", ())


def test_a_conversation_that_waits_for_its_answer_has_no_reference(tmp_path: Path) -> None:
    (item,) = items_of(tmp_path, [{"messages": TURNS[:-1]}], "messages", "generate")
    assert said(item) == [(turn["role"], turn["content"]) for turn in TURNS[:-1]]
    assert (item.text, item.references) == ("Two?", ())
    row = {"chat": {"turns": [{"from": "human", "value": "Two?"}]}}
    (mapped,) = items_of(tmp_path, [row], "sharegpt", "generate", columns={"conversations": "chat.turns"})
    assert (mapped.text, mapped.references) == ("Two?", ())
    assert "must end with the assistant's answer" in refusal(
        tmp_path, [{"messages": TURNS[:-1]}], "messages", "perplexity"
    )


def test_a_text_is_scored_by_itself(tmp_path: Path) -> None:
    (item,) = items_of(tmp_path, [{"body": "Once upon."}], "text", "perplexity", columns={"text": "body"})
    assert (item.text, item.messages) == ("Once upon.", ())


def test_a_summary_is_asked_for_as_in_training(tmp_path: Path) -> None:
    rows = [{"text": ["First.", "Second."], "summary": ["Both.", "Two."]}, {"text": "A {text}.", "summary": "A."}]
    for settings in ({}, {"prompt": "summarize: {text}"}):
        items = items_of(tmp_path, rows, "text-summary", "summarize", **settings)
        source = DataSource(source=str(tmp_path / "rows.jsonl"), format="text-summary")
        examples = load_data(Data(train=[source], **settings), "summarize").train
        assert [item.messages for item in items] == [example.messages[:-1] for example in examples]
        assert [item.references for item in items] == [("Both.", "Two."), ("A.",)]
        assert items[0].text == "First.\nSecond."


def test_a_prompt_of_several_columns_is_filled_and_labels_are_mapped(tmp_path: Path) -> None:
    rows = [
        {"text": "It rains.", "q": "Wet?", "label": 1},
        {"text": "Sun.", "q": "Wet?", "label": 0},
        {"text": "?", "q": "", "label": 9},
    ]
    settings = {
        "columns": {"question": "q"},
        "labels_map": {"0": "no", "1": "yes", "9": None},
        "labels": ["no", "yes"],
        "prompt": "{question} {text}",
    }
    items = items_of(tmp_path, rows, "text-label", "classify", **settings)
    assert [(item.text, item.gold) for item in items] == [("It rains.", "yes"), ("Sun.", "no")]
    assert said(items[0]) == [("user", "Wet? It rains.")]


def test_the_suites_system_message_comes_first_unless_the_item_has_one(tmp_path: Path) -> None:
    settings = {"generation": {"system": "Be calm."}}
    rows = [{"messages": TURNS}, {"messages": TURNS[3:]}]
    items = items_of(tmp_path, rows, "messages", "generate", **settings)
    assert [said(item)[0] for item in items] == [("system", "Be brief."), ("system", "Be calm.")]
    labelled = items_of(
        tmp_path,
        [{"text": "x", "label": "a"}],
        "text-label",
        "classify",
        labels=["a", "b"],
        prompt="{text}",
        **settings,
    )
    assert said(labelled[0]) == [("system", "Be calm."), ("user", "x")]
    assert items_of(tmp_path, [{"text": "x"}], "text", "perplexity", **settings)[0].messages == ()


def test_ids_are_texts_whatever_their_type(tmp_path: Path) -> None:
    rows = [{"id": identity, "prompt": "x"} for identity in ("a", 2, 3.0, 4.5, None)]
    assert [item.id for item in items_of(tmp_path, rows, "prompt", "generate")] == ["a", "2", "3", "4.5", "5"]


@pytest.mark.parametrize("second", [1, 1.0, "1"])
def test_ids_that_differ_only_by_type_are_the_same(tmp_path: Path, second: Any) -> None:
    message = refusal(tmp_path, [{"id": "1", "prompt": "x"}, {"id": second, "prompt": "y"}], "prompt", "generate")
    assert "rows.jsonl:2: the id 1 is used twice, first at " in message


def test_an_id_that_is_a_number_of_another_item_is_refused(tmp_path: Path) -> None:
    rows = [{"id": 2, "prompt": "x"}, {"prompt": "y"}]
    assert "the id 2 is used twice" in refusal(tmp_path, rows, "prompt", "generate")


@pytest.mark.parametrize("identity", ["", True, ["a"], {"a": 1}, "a\nb", "a\u0000", "\ud83d"])
def test_what_names_nothing_is_no_id(tmp_path: Path, identity: Any) -> None:
    assert "rows.jsonl:1: id " in refusal(tmp_path, [{"id": identity, "prompt": "x"}], "prompt", "generate")


def test_an_id_column_that_is_named_must_be_there(tmp_path: Path) -> None:
    message = refusal(tmp_path, [{"qid": "x", "prompt": "x"}], "prompt", "generate", id="quid")
    assert "there is no column quid (did you mean qid?); there are qid, prompt" in message
    assert "must hold a name" in refusal(tmp_path, [{"qid": None, "prompt": "x"}], "prompt", "generate", id="qid")


def test_clusters_are_read_and_must_be_there(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "doc": {"id": 7}}, {"prompt": "y", "doc": {"id": "7"}}]
    items = items_of(tmp_path, rows, "prompt", "generate", cluster="doc.id")
    assert [item.cluster for item in items] == ["7", "7"]
    message = refusal(tmp_path, [*rows, {"prompt": "z"}], "prompt", "generate", cluster="doc.id")
    assert "rows.jsonl:3: there is no column doc.id" in message


@pytest.mark.parametrize(
    ("form", "task", "row", "words"),
    [
        ("prompt", "generate", {"question": "x"}, "there is no column prompt; there are question"),
        ("prompt", "generate", {"prompt": 3}, "prompt must hold text, not 3"),
        ("prompt", "generate", {"prompt": " \n"}, "prompt is empty"),
        ("prompt", "generate", {"prompt": "x", "reference": 4}, "reference must hold a text or a list of texts, not 4"),
        ("prompt", "generate", {"prompt": "x", "reference": ["a", None]}, "not ['a', None]"),
        ("prompt", "generate", {"prompt": "x", "reference": "\udc00"}, "reference contains an unpaired surrogate"),
        ("prompt", "generate", {"prompt": "x\ud83d"}, "prompt contains an unpaired surrogate"),
        ("prompt", "generate", {"prompt": "x", "system": 5}, "system must hold text, not 5"),
        ("text-summary", "summarize", {"text": "x", "summary": 5}, "summary must be a text"),
        ("text-summary", "summarize", {"text": "x", "summary": ["ok", "\udc00"]}, "summary contains an unpaired"),
        ("text", "perplexity", {"text": ""}, "text is empty"),
        ("text", "perplexity", {"txt": "x"}, "there is no column text (did you mean txt?)"),
        ("prompt-completion", "perplexity", {"prompt": "x", "completion": ""}, "the text that is scored is empty"),
        ("messages", "generate", {"messages": []}, "must hold a list of turns"),
        ("messages", "generate", {"messages": TURNS[:1]}, "before the first user turn"),
        ("messages", "generate", {"messages": [{"role": "narrator", "content": "x"}]}, "unknown role 'narrator'"),
        ("messages", "generate", {"messages": [{"role": "user", "content": ""}]}, "the question is empty"),
        ("messages", "generate", {"turns": TURNS}, "there is no column messages"),
    ],
)
def test_a_row_that_cannot_be_asked_is_refused_by_its_line(
    tmp_path: Path, form: str, task: str, row: dict[str, Any], words: str
) -> None:
    message = refusal(tmp_path, [row], form, task)
    assert "rows.jsonl:1: " in message
    assert words in message


def test_sources_that_no_suite_can_mean_are_refused(tmp_path: Path) -> None:
    rows = [{"prompt": "x"}]
    assert "columns maps promt (did you mean prompt?)" in refusal(
        tmp_path, rows, "prompt", "generate", RecipeError, columns={"promt": "x"}
    )
    assert "format text has none" in refusal(
        tmp_path, [{"text": "x"}], "text", "perplexity", RecipeError, labels_map={"a": None}
    )
    assert "every item of a suite counts once" in refusal(tmp_path, rows, "prompt", "generate", RecipeError, weight=0.5)


def test_a_suite_without_an_item_is_refused(tmp_path: Path) -> None:
    assert "this file is empty" in refusal(tmp_path, [], "prompt", "generate")
    settings = {"labels_map": {"0": None}, "labels": ["a", "b"], "prompt": "{text}"}
    message = refusal(tmp_path, [{"text": "x", "label": 0}], "text-label", "classify", **settings)
    assert "the suite has no item" in message


def test_a_cap_takes_the_same_rows_each_time(tmp_path: Path) -> None:
    rows = [{"prompt": str(number), "id": f"q{number}"} for number in range(50)]
    items = items_of(tmp_path, rows, "prompt", "generate", cap=5)
    assert items == items_of(tmp_path, rows, "prompt", "generate", cap=5)
    assert len(items) == 5
    assert [item.where for item in items] != [f"rows.jsonl:{number}" for number in range(1, 6)]


def test_sources_of_several_formats_make_one_suite(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": "One?"}) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"instruction": "Two?", "output": "2"}) + "\n")
    data = [
        {"source": str(tmp_path / "a.jsonl"), "format": "prompt", "columns": {"prompt": "q"}},
        {"source": str(tmp_path / "b.jsonl"), "format": "alpaca"},
    ]
    items = read_items(Suite.model_validate({"name": "two", "task": "generate", "data": data}))
    assert [(item.id, item.where, item.text) for item in items] == [
        ("1", "a.jsonl:1", "One?"),
        ("2", "b.jsonl:1", "Two?"),
    ]


def test_tables_and_lists_of_objects_give_the_same_items(tmp_path: Path) -> None:
    rows = [{"id": "1", "prompt": "a, b?", "reference": 'say "c"'}, {"id": "2", "prompt": "d?", "reference": ""}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.csv").write_text('id,prompt,reference\n1,"a, b?","say ""c"""\n2,d?,\n')
    suites = [
        Suite.model_validate(
            {"name": "s", "task": "generate", "data": [{"source": str(tmp_path / name), "format": "prompt"}]}
        )
        for name in ("a.json", "a.csv")
    ]
    first, second = (read_items(suite) for suite in suites)
    assert hash_items(first) == hash_items(second)


def test_nul_and_very_long_texts_are_data_like_any_other(tmp_path: Path) -> None:
    long = "word " * 200_000
    (item,) = items_of(tmp_path, [{"prompt": "a\u0000b " + long, "reference": long}], "prompt", "generate")
    assert item.text.startswith("a\u0000b")
    assert item.references == (long,)
    assert len(refusal(tmp_path, [{"prompt": "x", "id": [long]}], "prompt", "generate")) < 1000


def test_the_hash_follows_ids_questions_answers_clusters_and_order(tmp_path: Path) -> None:
    rows = [{"id": 1, "prompt": "a", "reference": "x", "c": "p"}, {"id": 2, "prompt": "b", "reference": "y", "c": "p"}]
    changed = [
        [{**rows[0], "id": 3}, rows[1]],
        [{**rows[0], "prompt": "c"}, rows[1]],
        [{**rows[0], "reference": ["x", "z"]}, rows[1]],
        [{**rows[0], "system": "s"}, rows[1]],
        [{**rows[0], "c": "q"}, rows[1]],
        rows[::-1],
    ]
    hashes = {hash_items(items_of(tmp_path, each, "prompt", "generate", cluster="c")) for each in [rows, *changed]}
    assert len(hashes) == 7


def test_emotions_and_paper_summaries_are_read_as_they_lie(tmp_path: Path, shared_data: Path) -> None:
    table = (shared_data / "dair_emotion" / "val.txt").read_text().split("\n")
    assert table[0] == "text;label_name"
    lines = [line.rsplit(";", 1) for line in table[1:21]]
    rows = [{"text": text, "label_name": label} for text, label in lines]
    labels = ["anger", "fear", "joy", "love", "sadness", "surprise"]
    columns = {"label": "label_name"}
    items = items_of(tmp_path, rows, "text-label", "classify", labels=labels, prompt="{text}", columns=columns)
    assert [item.gold for item in items] == [label for _, label in lines]

    source = {
        "source": str(shared_data / "scitldr" / "dev.jsonl"),
        "format": "text-summary",
        "columns": {"text": "source", "summary": "target"},
        "id": "paper_id",
    }
    papers = read_items(Suite.model_validate({"name": "scitldr", "task": "summarize", "data": [source]}))
    assert len(papers) == 619
    assert {len(paper.references) for paper in papers} >= {1, 2, 3, 4}
