"""Tables as text: .csv with quoting, .tsv without, unless the file can only be read with quoting."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from edgetune.data.columns import normalize_name
from edgetune.data.text_file import read_text
from edgetune.errors import DataError

_MAX_FIELD_CHARACTERS = 2**31 - 1
_NAMED = 5
"""Number of rows with a wrong number of fields that are named."""

NumberedFields = tuple[int, list[str]]
"""A record's first line and its fields."""

NumberedRecord = tuple[int, dict[str, str]]
"""A record's first line and its fields by the header's names."""


class _BadQuotesError(ValueError):
    """Invalid quotes, with the first line of their record."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


def read_csv(path: Path) -> Iterator[NumberedRecord]:
    """The records of a comma-separated file with a header, as in RFC 4180.

    Quoted fields may contain commas, quotes and line ends. If the header has more semicolons or tabs than commas, these
    separate the fields, as spreadsheets write files in many countries. Excel's first line `sep=;` is supported.
    Raises DataError naming the line: an unclosed quote, rows with fewer or more fields than the header.
    """
    return _named(path, _split_quoted(path))


def read_tsv(path: Path) -> Iterator[NumberedRecord]:
    """The records of a tab-separated file with a header, literally, as IANA registers text/tab-separated-values.

    A record is a line, a field ends at a tab, and a quote is an ordinary character: texts often begin with an unclosed
    quote, and a reader with quoting would join all lines up to the next one. Quotes are read as in .csv in two cases:
    lines do not match the header (or there is one column, with quotes over several lines) and quoting makes all of them
    match; or each field with a quote is quoted from end to end, some with doubled quotes inside. Raises DataError
    naming the line of rows with fewer or more fields than the header.
    """
    literal = list(_split_at_tabs(path))
    return _named(path, iter(_quoted_instead(path, literal) or literal))


def _quoted_instead(path: Path, literal: list[NumberedFields]) -> list[NumberedFields] | None:
    """The records with quotes read as in .csv; None if quotes are ordinary characters."""
    text = read_text(path)
    if '"' not in text:
        return None
    try:
        quoted = list(_read_quoted(text, "\t"))
    except _BadQuotesError:
        return None
    if not _is_even(quoted):
        return None
    broken = any("\n" in field for _, fields in quoted for field in fields)
    if not _is_even(literal) or (broken and len(quoted[0][1]) == 1):
        return quoted
    fields = [field for _, record in literal for field in record if '"' in field]
    whole = all(re.fullmatch(r'"(?:[^"]|"")*"', field) for field in fields)
    return quoted if whole and any('""' in field[1:-1] for field in fields) else None


def _is_even(records: list[NumberedFields]) -> bool:
    """True if every record has the first one's number of fields; more fields must be empty."""
    count = len(records[0][1]) if records else 0
    return all(len(fields) >= count and not any(fields[count:]) for _, fields in records)


def _split_quoted(path: Path) -> Iterator[NumberedFields]:
    text = read_text(path)
    told = re.match(r"sep=(.)\r?\n", text)
    delimiter = _delimiter(text) if told is None else told[1]
    try:
        yield from _read_quoted(text, delimiter) if told is None else _read_quoted(text[told.end() :], delimiter, 2)
    except _BadQuotesError as problem:
        raise DataError(
            f"is not valid CSV ({problem})", where=f"{path}:{problem.line}", remedy="check the quotes of this row"
        ) from None


def _read_quoted(text: str, delimiter: str, line: int = 1) -> Iterator[NumberedFields]:
    """The records of a text that begins on `line`. Raises _BadQuotesError."""
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)  # the default of 131,072 is less than a long document
    before = line - 1
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True, delimiter=delimiter)
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = before + reader.line_num + 1
    except csv.Error as problem:
        raise _BadQuotesError(str(problem), line) from None


def _delimiter(text: str) -> str:
    """Comma, semicolon or tab: the most frequent in the header outside of quotes; in case of a tie, the first."""
    first = text.lstrip("\r\n").partition("\n")[0]
    header = re.sub(r'"[^"]*"', "", first)
    return max(",;\t", key=header.count)


def _split_at_tabs(path: Path) -> Iterator[NumberedFields]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        text = line.removesuffix("\r")
        if text:
            yield number, text.split("\t")


def _named(path: Path, records: Iterator[NumberedFields]) -> Iterator[NumberedRecord]:
    line, given = next(records, (1, []))
    header = [normalize_name(column) or f"column {number}" for number, column in enumerate(given, start=1)]
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise DataError(f"the header names a column twice: {', '.join(repeated)}", where=f"{path}:{line}")
    uneven: list[NumberedFields] = []
    for line, fields in records:
        if len(fields) >= len(header) and not any(fields[len(header) :]):
            yield line, dict(zip(header, fields, strict=False))
        else:
            uneven.append((line, fields))
    if uneven:
        raise _uneven(path, header, uneven)


def _uneven(path: Path, header: list[str], uneven: list[NumberedFields]) -> DataError:
    (line, fields), *others = uneven
    lines = ", ".join(str(number) for number, _ in others[:_NAMED])
    more = f", and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    also = f" ({len(others)} more such rows: line{'s' if len(others) > 1 else ''} {lines}{more})" if others else ""
    return DataError(
        f"this row has {len(fields)} fields, but the header has {len(header)} ({', '.join(header)}){also}",
        where=f"{path}:{line}",
        remedy="put texts with the separator or a line end in quotes, as spreadsheets do",
    )
