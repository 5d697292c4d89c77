"""Data of one's own: a table as people have it loads after one message and one edit of the recipe."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgetune.data.load import LoadedData, load_data
from edgetune.data.read import read_rows
from edgetune.errors import DataError, RecipeError
from edgetune.recipe.data import Data, DataSource

LABELS = ["billing", "technical", "account"]


def source(path: Path, **options: Any) -> DataSource:
    return DataSource(source=str(path), format="text-label", **options)


def load(*sources: DataSource, **options: Any) -> LoadedData:
    return load_data(Data(train=list(sources), prompt="{text}?", **{"labels": LABELS, **options}), "classify")


def refusal(*sources: DataSource, **options: Any) -> str:
    with pytest.raises((DataError, RecipeError)) as caught:
        load(*sources, **options)
    return str(caught.value)


def pasted(message: str) -> dict[str, str | None]:
    """The label map that a message gives to paste into the recipe."""
    found: dict[str, str | None] = yaml.safe_load(re.search(r"labels: (\{.*\})", message)[1])  # type: ignore[index]
    return found


def tickets() -> list[tuple[str, str]]:
    """420 of them, with the faults of a file that several people have filled in."""
    spellings = ["billing", "billing ", "Billing", "technical", "tecnical", "account", "", "account\u00a0", "other"]
    rows = [
        (f'Ticket {number}: "it, fails"\nagain; and again' if number % 7 == 0 else f"Ticket {number}", "technical")
        for number in range(420)
    ]
    return [(text, spellings[number % len(spellings)]) for number, (text, _) in enumerate(rows)]


def write_table(
    path: Path, header: list[str], rows: list[Any], *, delimiter: str = ",", encoding: str = "utf-8"
) -> Path:
    text = io.StringIO()
    table = csv.writer(text, delimiter=delimiter)
    table.writerow(header)
    table.writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def test_420_tickets_of_a_student_load_after_one_edit_of_the_recipe(tmp_path: Path) -> None:
    path = write_table(tmp_path / "tickets.csv", [" Text", "Label "], tickets(), delimiter=";", encoding="utf-8-sig")
    message = refusal(source(path))
    assert message.startswith(f"{path}:")
    for told in ("'Billing' (did you mean billing?) (47 rows)", "'tecnical' (did you mean technical?) (47 rows)"):
        assert told in message
    assert "'' (empty) (46 rows)" in message
    assert "4 unknown labels in 186 rows" in message
    assert "'billing '" not in message
    loaded = load(source(path, labels=pasted(message)))
    spelled = Counter(label.strip().lower() for _, label in tickets())
    assert Counter(example.label for example in loaded.train) == {
        "billing": spelled["billing"],
        "technical": spelled["technical"] + spelled["tecnical"],
        "account": spelled["account"],
    }
    (counts,) = loaded.train_sources
    assert (counts.read, counts.labelled, len(counts.left_out)) == (420, 420 - spelled[""] - spelled["other"], 5)
    assert loaded.train[0].source is not None
    assert loaded.train[0].source.text == 'Ticket 0: "it, fails"\nagain; and again'


def test_labels_are_compared_without_outer_spaces_and_in_unicodes_composed_form(tmp_path: Path) -> None:
    rows = [("a", "caf\u00e9 noir"), ("b", " cafe\u0301\u00a0 noir"), ("c", "\ufefftee")]
    path = write_table(tmp_path / "a.csv", ["text", "label"], rows)
    loaded = load(source(path), labels=["café noir", "tee"])
    assert [example.label for example in loaded.train] == ["café noir", "café noir", "tee"]
    assert [example.answer for example in loaded.train] == ["café noir", "café noir", "tee"]


def test_labels_are_compared_in_any_case_on_request(tmp_path: Path) -> None:
    rows = [("a", "BILLING "), ("b", "Tech"), ("c", "STRASSE")]
    path = write_table(tmp_path / "a.csv", ["text", "label"], rows)
    labels, maps = ["billing", "technical", "Straße"], {"tech": "technical"}
    message = refusal(source(path, labels=maps), labels=labels)
    assert "labels_ignore_case: true reads 'BILLING ' as billing" in message
    loaded = load(source(path, labels=maps, labels_ignore_case=True), labels=labels)
    assert [example.label for example in loaded.train] == ["billing", "technical", "Straße"]


def test_labels_that_differ_in_case_only_cannot_be_read_in_any_case(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["text", "label"], [("a", "us"), ("b", "US")])
    assert [each.label for each in load(source(path), labels=["us", "US"]).train] == ["us", "US"]
    assert "us and US differ only in case" in refusal(source(path, labels_ignore_case=True), labels=["us", "US"])


def test_a_label_map_adds_to_the_labels(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["text", "label"], [("a", "billing"), ("b", "Rechnung"), ("c", "?")])
    maps = {"Rechnung": "billing", "?": None}
    assert [each.label for each in load(source(path, labels=maps)).train] == ["billing", "billing"]
    assert [each.label for each in load(source(path, labels={**maps, "billing": "account"})).train] == [
        "account",
        "billing",
    ]


def test_the_map_of_a_message_keeps_what_is_mapped_already(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["text", "label"], [("a", "Rechnung"), ("b", "tecnical"), ("c", 'a "b": c')])
    message = refusal(source(path, labels={"Rechnung": "billing"}))
    assert pasted(message) == {"Rechnung": "billing", "tecnical": "technical", 'a "b": c': None}
    assert len(load(source(path, labels=pasted(message))).train) == 2


def test_one_unknown_label_is_told_by_its_line(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["text", "label"], [("a", "billing"), ("b", "tecnical")])
    assert refusal(source(path)).startswith(f"{path}:3: unknown label 'tecnical' (did you mean technical?); known are ")


def test_a_column_of_a_thousand_values_is_told_in_one_message_of_some_of_them(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["text", "label"], [(f"t{number}", number) for number in range(1000)])
    message = refusal(source(path))
    assert "1000 unknown labels in 1000 rows" in message
    assert "and 960 more" in message
    assert len(message) < 3000


def test_missing_columns_are_told_once_with_those_that_may_be_meant(tmp_path: Path) -> None:
    rows = [(number, f"The long text of ticket {number}", "Billing", "x") for number in range(9)]
    path = write_table(tmp_path / "a.csv", ["id", "Ticket text", "Category", "note"], rows)
    message = refusal(source(path, labels={"Billing": "billing"}))
    assert message == (
        f"{path}: there are no columns text (did you mean Ticket text?), label; there are id, Ticket text, Category, "
        "note; map them in the source's columns, such as columns: {text: Ticket text, label: Category}"
    )
    columns = yaml.safe_load(message.rpartition("columns: ")[2])
    assert len(load(source(path, labels={"Billing": "billing"}, columns=columns)).train) == 9


def test_columns_and_labels_are_mapped_by_one_edit(tmp_path: Path) -> None:
    rows = [(number, text, label) for number, (text, label) in enumerate(tickets())]
    path = write_table(tmp_path / "a.csv", ["", "Ticket: what?", "Kind, of"], rows, delimiter=";")
    message = refusal(source(path))
    assert "there are no columns text, label; there are column 1, Ticket: what?, Kind, of; " in message
    columns = yaml.safe_load(re.search(r"columns: (\{.*?\})", message)[1])  # type: ignore[index]
    assert columns == {"text": "Ticket: what?", "label": "Kind, of"}
    assert len(load(source(path, columns=columns, labels=pasted(message))).train) == 420 - 92


def test_a_column_that_some_rows_lack_is_told_by_the_first_of_them(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "billing"}, {"text": "b"}, {"label": "billing"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = refusal(source(tmp_path / "a.jsonl"))
    assert message.startswith(f"{tmp_path / 'a.jsonl'}:2: there is no column label")
    assert "(1 more row has a fault: a.jsonl:3)" in message


def test_columns_are_found_whatever_their_case_and_the_spaces_around_them(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", [" Ticket Text ", "LABEL"], [("a", "billing")])
    (example,) = load(source(path, columns={"text": "Ticket Text"})).train
    assert (example.content, example.label) == ("a", "billing")
    (example,) = load(source(path, columns={"text": " Ticket Text "})).train
    assert example.content == "a"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_may_have_the_separators_of_any_spreadsheet(tmp_path: Path, delimiter: str) -> None:
    rows = [["one; two", "a,b"], ["three\nfour", 'say "hi"\tnow']]
    path = write_table(tmp_path / "a.csv", ["text", "label"], rows, delimiter=delimiter)
    assert [list(row.values.values()) for row in read_rows(source(path))] == rows
    assert [row.where for row in read_rows(source(path))] == [f"{path}:2", f"{path}:3"]


def test_excels_line_that_names_the_separator_is_obeyed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"sep=;\r\ntext;label\r\na,b;billing\r\n")
    (row,) = read_rows(source(tmp_path / "a.csv"))
    assert (row.values, row.where) == ({"text": "a,b", "label": "billing"}, f"{tmp_path / 'a.csv'}:3")


def test_columns_without_a_name_do_no_harm(tmp_path: Path) -> None:
    rows = [(0, "a", "billing", "", ""), (1, "b", "billing", "", "", "", "")]
    path = write_table(tmp_path / "a.csv", ["", "text", "label", "", ""], rows)
    assert [row.values["text"] for row in read_rows(source(path))] == ["a", "b"]


def test_all_rows_of_another_length_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,billing\nb, c,billing\nd,billing\ne\n")
    assert "a.csv:3: this row has 3 fields, but the header has 2 (text, label) (1 more such rows: line 5)" in refusal(
        source(tmp_path / "a.csv")
    )


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("cp1252", ["a.csv:3", "0x80", "Windows-1252"]), ("utf-16", ["a.csv:1", "UTF-16"]), ("utf-16-le", ["UTF-16"])],
)
def test_a_file_in_another_encoding_is_refused_with_the_way_out(
    tmp_path: Path, encoding: str, words: list[str]
) -> None:
    path = write_table(tmp_path / "a.csv", ["text", "label"], [("plain", "x"), ("5 €", "x")], encoding=encoding)
    message = refusal(source(path))
    assert [word for word in [*words, "CSV UTF-8", "iconv -f "] if word not in message] == []


@pytest.mark.parametrize("name", ["tickets.xlsx", "tickets.XLS", "tickets.ods"])
def test_a_spreadsheet_beside_the_recipe_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    message = refusal(source(Path(name)).found_from(tmp_path))  # type: ignore[arg-type]
    assert message.startswith(f"{tmp_path / name}: edgetune cannot read spreadsheets")
    assert "CSV UTF-8" in message


@pytest.mark.parametrize("beginning", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b"])
def test_a_spreadsheet_that_calls_itself_csv_is_refused(tmp_path: Path, beginning: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(beginning + b"\0\1\2")
    assert f"{tmp_path / 'a.csv'}: is not text but a " in refusal(source(tmp_path / "a.csv"))


def test_a_suite_tells_all_its_unknown_labels_at_once(tmp_path: Path) -> None:
    from edgetune.judging.suites.items import read_items
    from edgetune.judging.suites.suite import Suite, SuiteSource

    path = write_table(tmp_path / "a.csv", ["text", "label"], tickets())
    data = [SuiteSource(source=str(path), format="text-label")]
    suite = Suite(name="tickets", task="classify", data=data, labels=LABELS, prompt="{text}?")
    with pytest.raises(DataError, match="4 unknown labels in 186 rows") as caught:
        read_items(suite)
    data = [SuiteSource(source=str(path), format="text-label", labels=pasted(str(caught.value)))]
    assert len(read_items(suite.model_copy(update={"data": data}))) == 420 - 92


def test_training_tells_what_is_left_out_not_read_or_empty(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    prepare = pytest.importorskip("edgetune.training.prepare")
    from edgetune.recipe.schema import Recipe

    rows = [("a", "billing"), (" ", "account"), ("b", "?"), ("c", "technical"), ("d", "?")]
    path = write_table(tmp_path / "a.csv", ["text", "label"], rows)
    sources = [source(path, labels={"?": None})]
    data = {"train": sources, "eval": sources, "labels": LABELS, "prompt": "{text}"}
    recipe = Recipe.model_validate(
        {"name": "r", "task": "classify", "base": "x/y", "data": data, "method": {"type": "lora"}}
    )
    prepare._tell_of_rows(load_data(recipe.data, recipe.task), recipe)
    assert capsys.readouterr().err.splitlines() == [
        "a.csv: 2 of 5 rows are left out by the label map (a.csv:4, a.csv:6)",
        "warning: 1 training row has an empty text or answer, and the model learns it (a.csv:3); remove such rows "
        "unless you want them",
    ]


def test_data_check_names_what_is_left_out_and_what_is_not_read(
    edgetune_command: Callable[..., Any], tmp_path: Path
) -> None:
    rows = [(f"ticket {number}", label, "mail") for number, (_, label) in enumerate(tickets())]
    write_table(tmp_path / "tickets.csv", ["text", "label", "channel"], rows)
    maps = {"Billing": "billing", "tecnical": "technical", "": None, "other": None}
    recipe = {
        "name": "tickets",
        "task": "classify",
        "base": str(tmp_path / "nowhere"),
        "data": {
            "train": [{"source": "tickets.csv", "format": "text-label", "labels": maps}],
            "labels": LABELS,
            "prompt": "{text}?",
        },
        "method": {"type": "lora"},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    seen = edgetune_command("data", "check", tmp_path / "recipe.yaml")
    assert seen.exit_code == 0, seen.stderr
    assert "92 rows left out by the label map (tickets.csv:8, tickets.csv:10, " in seen.stdout
    assert "channel (420)" in seen.stdout
    document = json.loads(edgetune_command("data", "check", tmp_path / "recipe.yaml", "--json").stdout)
    assert document["train"]["sources"][0]["unread"] == {"channel": 420}
