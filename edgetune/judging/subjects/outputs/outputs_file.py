"""A file of outputs that a model has written elsewhere, as a model under test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgetune import events
from edgetune.data.columns import shown
from edgetune.data.read import Row, read_rows
from edgetune.errors import DataError, ModelError
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.outputs.chats import unpack_chats
from edgetune.judging.subjects.outputs.columns import ID, LABEL, OUTPUT_COLUMNS, find_columns, read_fields, to_answer
from edgetune.judging.subjects.outputs.lm_eval_samples import are_samples, match_samples, read_samples
from edgetune.judging.suites.identity import hash_value
from edgetune.judging.suites.items import Item, name_of
from edgetune.judging.suites.suite import Suite
from edgetune.recipe.data import DATA_SUFFIXES, DataSource


class OutputsFile:
    """Outputs by item: a .jsonl, .json, .csv, .tsv or .parquet file, whose columns `columns` describes.

    Rows belong to items by their `id`; a file without that column has one row per item, in the suite's order. Rows of
    other items are passed over with a note. Samples of lm-evaluation-harness are matched as `lm_eval_samples` says.
    `fingerprint` is the SHA-256 of the outputs by id, whatever kind of file holds them and in what order; rows without
    ids have their numbers there, as a suite's items have.
    """

    def __init__(self, reference: str, rows: Sequence[Row]) -> None:
        self.reference = reference
        self.kind = "outputs"
        self.size_bytes: int | None = None
        self.runtime: Mapping[str, str] = {}
        self._are_samples = are_samples(rows)
        rows = read_samples(rows, reference) if self._are_samples else unpack_chats(rows, OUTPUT_COLUMNS)
        self._by_id = _rows_by_id(rows, reference)
        self._rows = list(self._by_id.values()) if self._by_id else list(rows)
        self._columns = find_columns([row.values for row in rows], reference)
        named = self._by_id or {str(number): row for number, row in enumerate(rows, start=1)}
        self.fingerprint = hash_value({name: read_fields(row, self._columns) for name, row in named.items()})

    def check(self, items: Sequence[Item], suite: Suite) -> None:
        """Raise DataError when an item has no output, or the outputs are not what the suite's task asks for."""
        answers = list(self.answers(items, suite))
        if self._by_id and (others := len(self._by_id) - len(items)):
            events.note(f"{self.reference}: {others:,} of {len(self._by_id):,} rows match no item and are ignored")
        if suite.task == "classify":
            self._check_labels(answers, suite)

    def answers(self, items: Sequence[Item], suite: Suite) -> Iterator[Answer]:
        """The answers in the order of the items. Raises DataError naming file and row."""
        for row, item in zip(self._matched(items), items, strict=True):
            yield to_answer(row, item, suite, self._columns)

    def close(self) -> None:
        """Nothing is open."""

    def _check_labels(self, answers: Sequence[Answer], suite: Suite) -> None:
        """Refuse a column that holds none of the suite's labels, such as class numbers or another language."""
        column = self._columns.label
        if column is not None and all(answer.predicted is None for answer in answers):
            raise DataError(
                f"column {column} holds none of the suite's labels ({', '.join(suite.labels)}); it holds "
                f"{shown(self._rows[0].values[column])}",
                where=self.reference,
                remedy="write the labels as the suite writes them",
            )
        if column == LABEL:
            events.note(f"{self.reference}: column {LABEL} is used as the labels that the model gave")

    def _matched(self, items: Sequence[Item]) -> list[Row]:
        if self._are_samples:
            return match_samples(self._rows, items, self.reference)
        if not self._by_id:
            if len(self._rows) != len(items):
                raise DataError(
                    f"it has {len(self._rows):,} rows for the suite's {len(items):,} items, and no column {ID}",
                    where=self.reference,
                    remedy=f"give every row the {ID} of its item, or one row to each item in the suite's order",
                )
            return self._rows
        missing = [item.id for item in items if item.id not in self._by_id]
        if missing:
            more = ", ..." if len(missing) > 3 else ""
            raise DataError(
                f"{len(missing):,} of the suite's {len(items):,} items have no output: {', '.join(missing[:3])}{more}",
                where=self.reference,
                remedy=f"the file's ids are like {', '.join(list(self._by_id)[:3])}; every item needs a row",
            )
        return [self._by_id[item.id] for item in items]


def recognizes(reference: str) -> bool:
    """True for the name of a data file."""
    return reference.lower().endswith(DATA_SUFFIXES)


def open_outputs(reference: str) -> OutputsFile:
    """Read a file of outputs.

    Raises ModelError when there is no such file, and DataError naming the row: what cannot be read, ids that are used
    twice or that only some rows have, no column of outputs or several, a value of the wrong kind.
    """
    if not Path(reference).is_file():
        raise ModelError(
            "there is no such file of outputs",
            where=reference,
            remedy=f"give a {', '.join(DATA_SUFFIXES)} file with the columns {ID} and output",
        )
    return OutputsFile(reference, read_rows(DataSource(source=reference, format="prompt-completion")))


def _rows_by_id(rows: Sequence[Row], reference: str) -> dict[str, Row]:
    """The rows by their ids; empty where no row has one."""
    having = [row for row in rows if row.values.get(ID) is not None]
    if not having:
        return {}
    if len(having) < len(rows):
        without = next(row for row in rows if row.values.get(ID) is None)
        raise DataError(
            f"{len(rows) - len(having):,} of {len(rows):,} rows have no {ID}",
            where=without.where,
            remedy=f"give every row an {ID}, or none",
        )
    names = [name_of(row.values[ID], ID, row.where) for row in rows]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        places = [row.where for row, other in zip(rows, names, strict=True) if other == name]
        raise DataError(
            f"the {ID} {shown(name)} is used {count} times, first at {places[0]}",
            where=places[1],
            remedy="keep one output for each item",
        )
    return dict(zip(names, rows, strict=True))
