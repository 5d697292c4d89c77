"""Reading rows: every kind of file, the slices of splits, and what is said when a file cannot be read."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from edgetune.data.read import read_rows
from edgetune.data.split import slice_split
from edgetune.errors import DataError, MissingComponent
from edgetune.recipe.data import DataSource

ROWS = [{"text": "good, really", "label": "positive"}, {"text": 'a "quote"', "label": "neutral"}]


def source(path: Path | str, split: str = "train") -> DataSource:
    return DataSource(source=str(path), split=split, format="text-label")


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def refusal(path: Path | str, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        read_rows(source(path, split))
    return str(caught.value)


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    write(tmp_path / "a.json", json.dumps(ROWS, indent=2))
    write(tmp_path / "b.json", json.dumps({"first": ROWS[0], "second": ROWS[1]}))
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["text", "label"])
        table.writeheader()
        table.writerows(ROWS)
    write(tmp_path / "a.tsv", "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in ROWS))
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.json", "b.json", "a.csv", "a.tsv", "a.parquet"):
        assert [row.values for row in read_rows(source(tmp_path / name))] == ROWS, name


def test_rows_say_where_they_were_read(tmp_path: Path) -> None:
    jsonl = write(tmp_path / "a.jsonl", '{"text": "one"}\n\n{"text": "three"}\n')
    assert [row.where for row in read_rows(source(jsonl))] == [f"{jsonl}:1", f"{jsonl}:3"]
    table = write(tmp_path / "a.csv", 'text,label\n"two\nlines",x\nlast,y\n')
    assert [row.where for row in read_rows(source(table))] == [f"{table}:2", f"{table}:4"]
    keyed = write(tmp_path / "a.json", '{"10808977": {"text": "one"}}')
    assert read_rows(source(keyed))[0].where.endswith("a.json: key 10808977")


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv", "a.csv"])
def test_only_a_newline_ends_a_line(tmp_path: Path, name: str) -> None:
    text = "left\u0085right\u2028end"
    body = json.dumps({"text": text}, ensure_ascii=False) + "\n" if name == "a.jsonl" else f"text\r\n{text}\r\n"
    rows = read_rows(source(write(tmp_path / name, body)))
    assert [row.values for row in rows] == [{"text": text}]


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\ngut,positive\n", encoding="utf-8-sig")
    assert read_rows(source(path))[0].values == {"text": "gut", "label": "positive"}


def test_a_tsv_takes_quotes_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'label\ttext\n0\t"Arriving Tuesday" is a lie\n1\t"never closed\n2\tfine\n')
    assert [row.values["text"] for row in read_rows(source(path))] == [
        '"Arriving Tuesday" is a lie',
        '"never closed',
        "fine",
    ]


def test_a_tsv_whose_quotes_hold_line_breaks_and_tabs_is_read_as_its_writer_wrote_it(tmp_path: Path) -> None:
    texts = ["one\ntwo", 'he said "no"\tand went', "plain", "", 'a "b"']
    for header in (["id", "output"], ["output"]):
        rows = [{"id": str(number), "output": text} for number, text in enumerate(texts)]
        rows = [{name: row[name] for name in header} for row in rows]
        path = tmp_path / "a.tsv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, header, dialect="excel-tab")
            writer.writeheader()
            writer.writerows(rows)
        read = read_rows(source(path))
        assert [row.values for row in read] == rows
    assert read[1].where == f"{path}:4"


def test_a_tsv_whose_quotes_are_all_doubled_inside_is_read_as_its_writer_wrote_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'id\ttext\n0\t"say ""hi"""\n1\tfine\n')
    assert [row.values["text"] for row in read_rows(source(path))] == ['say "hi"', "fine"]
    path = write(tmp_path / "b.tsv", 'id\ttext\n0\t"say ""hi"""\n1\tsix" wide\n2\t"quoted"\n')
    assert [row.values["text"] for row in read_rows(source(path))] == ['"say ""hi"""', 'six" wide', '"quoted"']


def test_a_csv_field_may_be_longer_than_the_csv_modules_default_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"text\n{'x' * 200_000}\n")
    assert len(read_rows(source(path))[0].values["text"]) == 200_000


def test_the_real_tweets_are_read_whole(shared_data: Path) -> None:
    path = shared_data / "tweet_sentiment" / "train.tsv"
    rows = read_rows(source(path))
    assert len(rows) == 45_616
    assert rows[-1].where == f"{path}:45617"
    counts = {label: sum(row.values["label"] == label for row in rows) for label in "012"}
    assert counts == {"0": 7_094, "1": 20_673, "2": 17_849}


bounds = st.just("") | st.integers(-250, 250).map(str) | st.integers(-100, 100).map("{}%".format)


@settings(deadline=None)  # the first example imports datasets
@given(count=st.integers(0, 250), start=bounds, stop=bounds)
@example(count=50, start="10%", stop="20")
@example(count=50, start="5", stop="50%")
def test_slices_select_what_datasets_would(count: int, start: str, stop: str) -> None:
    reader = pytest.importorskip("datasets.arrow_reader")
    split = f"train[{start}:{stop}]"
    assume(not ("%" in split and any(abs(int(bound.rstrip("%") or 0)) > 100 for bound in (start, stop))))
    expected = reader.ReadInstruction.from_spec(split).to_absolute({"train": count})[0]
    assert slice_split(range(count), split, where="a.jsonl") == list(range(expected.from_, expected.to))


def test_a_slice_needs_no_name_and_keeps_line_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "".join(f'{{"n": {number}}}\n' for number in range(10)))
    rows = read_rows(source(path, "[5:7]"))
    assert [(row.where, row.values["n"]) for row in rows] == [(f"{path}:6", 5), (f"{path}:7", 6)]


@pytest.mark.parametrize(
    "split", ["train[5]", "train[:1000", "train[a:b]", "train+test", "train[:10](pct1_dropremainder)"]
)
def test_a_split_that_is_not_understood_is_refused_with_an_example(tmp_path: Path, split: str) -> None:
    message = refusal(write(tmp_path / "a.jsonl", '{"n": 1}\n'), split)
    assert split in message
    assert "a.jsonl" in message
    assert "train[:1000]" in message


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '{"text": "fine"}\n{"text": "broken}\n', ["a.jsonl:2", "not valid JSON", "column"]),
        ("a.jsonl", '{"text": "fine"}\n["a", "list"]\n', ["a.jsonl:2", "must be a JSON object", '["a", "list"]']),
        ("a.jsonl", '{"n": ' + "9" * 5000 + "}\n", ["a.jsonl:1", "JSON"]),
        ("a.jsonl", "[" * 100_000, ["a.jsonl:1", "JSON"]),
        ("a.json", '[\n{"text": "fine"},\n{"text" "no colon"}\n]', ["a.json:3", "not valid JSON"]),
        ("a.json", '[{"text": "fine"}, 7]', ["a.json: item 2", "must be a JSON object", "7"]),
        ("a.json", '{"data": [1, 2]}', ["a.json: key data", "must be a JSON object"]),
        ("a.json", "3", ["a.json", "list of objects"]),
        ("a.json", "[]", ["a.json", "no rows", "train"]),
        ("a.csv", "text,label\na,b\nshort\n", ["a.csv:3", "1 fields", "2 (text, label)"]),
        ("a.csv", "text,label\na,b,c\n", ["a.csv:2", "3 fields"]),
        ("a.csv", 'text,label\nfine,x\n"never closed,x\nmore,y\n', ["a.csv:3", "not valid CSV", "quotes"]),
        ("a.csv", "text,text\na,b\n", ["a.csv:1", "twice", "text"]),
        ("a.csv", "text,label\n", ["a.csv", "no rows"]),
        ("a.tsv", "text\tlabel\nwithout a tab\n", ["a.tsv:2", "1 fields", "2 (text, label)"]),
        ("a.tsv", 'id\ttext\n0\t"never closed\nmore\n1\tfine\n', ["a.tsv:3", "1 fields", "2 (id, text)"]),
        ("a.parquet", "this is text", ["a.parquet", "parquet"]),
        ("a.jsonl", "", ["a.jsonl", "empty"]),
        ("a.parquet", "", ["a.parquet", "empty"]),
        ("a.txt", "text;label\n", ["a.txt", "files of kind .txt", ".jsonl, .json, .csv, .tsv, .parquet"]),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_place(tmp_path: Path, name: str, text: str, words: list[str]) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    message = refusal(write(tmp_path / name, text))
    assert [word for word in words if word not in message] == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path / "nowhere.jsonl")
    assert str(tmp_path / "nowhere.jsonl") in message
    assert "no such data file" in message


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    assert "cannot be read" in refusal(tmp_path / "a.jsonl")


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "a.jsonl", '{"n": 1}\n'), "train[1:]")
    assert "no rows in split train[1:]" in message
    assert "a.jsonl" in message


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_refused_with_the_line(tmp_path: Path, encoding: str) -> None:
    message = refusal(write(tmp_path / "a.csv", "text\nplain\ncafé\n", encoding))
    assert f"a.csv:{3 if encoding == 'latin-1' else 1}" in message
    assert "UTF-8" in message


def test_a_local_folder_is_read_through_datasets(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    write(tmp_path / "train.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    rows = read_rows(source(tmp_path, "[1:]"))
    assert [row.values for row in rows] == ROWS[1:]
    assert "train[1:]: row 1" in rows[0].where
    message = refusal(tmp_path, "validation")
    assert "validation" in message
    assert str(tmp_path) in message


@pytest.mark.parametrize("setting", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
@pytest.mark.parametrize("name", ["nobody/nothing-100k", "data/no/such/folder"])
def test_a_hub_data_set_that_cannot_be_reached_is_named_with_the_way_out(name: str, setting: dict[str, str]) -> None:
    pytest.importorskip("datasets")
    program = (
        "import sys\n"
        "from edgetune.data.read import read_rows\n"
        "from edgetune.errors import DataError\n"
        "from edgetune.recipe.data import DataSource\n"
        "try:\n"
        "    read_rows(DataSource(source=sys.argv[1], format='sharegpt'))\n"
        "except DataError as problem:\n"
        "    print(problem)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name], env=os.environ | setting, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{name}: there is no such file or folder here")
    assert "check the name and the network" in done.stdout
    assert ".jsonl" in done.stdout
    assert not done.stderr


@pytest.mark.parametrize(("module", "name"), [("datasets", "owner/name"), ("pyarrow", "a.parquet")])
def test_a_missing_library_is_named_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingComponent, match=r'pip install "edgetune\[train\]"') as caught:
        read_rows(source(name))
    assert caught.value.exit_code == 5
    assert module in str(caught.value)
