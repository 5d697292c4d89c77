"""Tables as text: .csv with quoting, .tsv without."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from edgetune.data.text_file import read_text
from edgetune.errors import DataError

_MAX_FIELD_CHARACTERS = 2**31 - 1

NumberedFields = tuple[int, list[str]]
"""The line that a record begins on, and its fields."""

NumberedRecord = tuple[int, dict[str, str]]
"""The line that a record begins on, and its fields by the header's names."""


def read_csv(path: Path) -> Iterator[NumberedRecord]:
    """The records of a comma-separated file with a header, as in RFC 4180.

    Quoted fields may hold commas, quotes and line ends. Raises DataError naming the line: a quote that nothing closes,
    a row with fewer or more fields than the header.
    """
    return _named(path, _split_quoted(path))


def read_tsv(path: Path) -> Iterator[NumberedRecord]:
    """The records of a tab-separated file with a header, literally, as IANA registers text/tab-separated-values.

    A record is a line, a field ends at a tab, and a quote is a character like any other: texts begin with quotes that
    nothing closes, and a reader that honours quotes swallows the lines up to the next one. Raises DataError naming the
    line of a row with fewer or more fields than the header.
    """
    return _named(path, _split_at_tabs(path))


def _split_quoted(path: Path) -> Iterator[NumberedFields]:
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)  # the default of 131,072 is less than a long document
    reader = csv.reader(io.StringIO(read_text(path), newline="\n"), strict=True)
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as problem:
        raise DataError(
            f"is not valid CSV ({problem})", where=f"{path}:{line}", remedy="check the quotes of this row"
        ) from None


def _split_at_tabs(path: Path) -> Iterator[NumberedFields]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        text = line.removesuffix("\r")
        if text:
            yield number, text.split("\t")


def _named(path: Path, records: Iterator[NumberedFields]) -> Iterator[NumberedRecord]:
    line, header = next(records, (1, []))
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise DataError(f"the header names a column twice: {', '.join(repeated)}", where=f"{path}:{line}")
    for line, fields in records:
        if len(fields) != len(header):
            raise DataError(
                f"this row has {len(fields)} fields, and the header has {len(header)} ({', '.join(header)})",
                where=f"{path}:{line}",
            )
        yield line, dict(zip(header, fields, strict=True))
