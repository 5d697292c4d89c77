"""A file's values -> the recipe's labels, and one message about all unknown values."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgetune.data.columns import normalize_name
from edgetune.errors import DataError, RecipeError
from edgetune.recipe.data import Data, DataSource
from edgetune.recipe.yaml_input import nearest

SHOWN = 40
"""Number of unknown values that are listed; a column with more of them is probably not the label column."""
_NEAR = 0.6
"""Minimum similarity (difflib's ratio) of a value and the label that is proposed for it."""


def find_label(value: Any, source: DataSource, data: Data, where: str) -> str | None:
    """The label of a row's value; None if the label map leaves the row out.

    Values are compared as text: first exactly, then without outer spaces and in Unicode's composed form, and with
    labels_ignore_case in any case. The label map comes before the labels. Raises DataError for an unknown value.
    """
    spellings = spellings_of(value)
    for spelling in spellings:
        if spelling in source.labels:
            return source.labels[spelling]
        if spelling in data.labels:
            return spelling
    known = known_labels(source, data)
    alike = {normalize_name(name, ignore_case=source.labels_ignore_case): name for name in reversed(known)}
    for spelling in spellings:
        name = alike.get(normalize_name(spelling, ignore_case=source.labels_ignore_case))
        if name is not None:
            return known[name]
    raise DataError(
        f"unknown label {spellings[0]!r}{nearest(spellings[0], known)}; known are {', '.join(known)}",
        where=where,
        remedy=None if source.labels else "map the file's values in the source's labels, such as {\"0\": negative}",
    )


def check_labels(values: Iterable[tuple[str, Any]], source: DataSource, data: Data) -> None:
    """Raise one DataError about all unknown values among `values`, given as (where, value).

    It counts each value, names the nearest label, and ends with a label map to paste.
    """
    places: dict[str, list[str]] = {}
    for where, value in values:
        try:
            find_label(value, source, data, where)
        except DataError:
            places.setdefault(spellings_of(value)[0], []).append(where)
    if places:
        raise _unknown(places, source, data)


def check_label_map(source: DataSource, data: Data) -> None:
    """Raise RecipeError for a map to unknown labels, and for labels that differ only in case if case is ignored."""
    for value, label in source.labels.items():
        if label is not None and label not in data.labels:
            raise RecipeError(
                f"labels maps {value} to {label}{nearest(label, data.labels)}, but data.labels has "
                f"{', '.join(data.labels) or 'none'}",
                where=source.source,
            )
    if source.labels_ignore_case:
        alike: dict[str, str] = {}
        for label in data.labels:
            other = alike.setdefault(normalize_name(label, ignore_case=True), label)
            if other != label:
                raise RecipeError(
                    f"labels_ignore_case is true, but the labels {other} and {label} differ only in case",
                    where=source.source,
                    remedy="set it to false, and map other spellings in the source's labels",
                )


def known_labels(source: DataSource, data: Data) -> dict[str, str | None]:
    """Every known value -> its label, the map's before the labels themselves."""
    return {**source.labels, **{label: label for label in data.labels if label not in source.labels}}


def spellings_of(value: Any) -> tuple[str, ...]:
    """The spellings of a value in a label map: 4.0 also as 4, True as true, and None as null."""
    if value is None or isinstance(value, bool):
        return str(value), "null" if value is None else str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(value), str(int(value))
    return (str(value),)


def _unknown(places: Mapping[str, Sequence[str]], source: DataSource, data: Data) -> DataError:
    commonest = sorted(places, key=lambda value: -len(places[value]))
    proposed = {value: _propose(value, data.labels) for value in commonest}
    first = min((found[0] for found in places.values()), key=_line)
    more = len(commonest) - SHOWN
    told = [_told(value, places[value], proposed[value]) for value in commonest[:SHOWN]]
    rows = sum(map(len, places.values()))
    what = f"unknown label {told[0]}" if len(told) == 1 else f"{len(places)} unknown labels in {rows} rows: "
    if len(told) > 1:
        what += ", ".join(told) + (f", and {more} more" if more > 0 else "")
    pasted = {value: label for value, label in proposed.items() if value in commonest[:SHOWN]}
    return DataError(
        f"{what}; known are {', '.join(known_labels(source, data))}",
        where=first,
        remedy=f"{_case_hint(proposed, source)}put this into the source, with the right labels (null leaves the rows "
        f"out): labels: {_as_yaml({**source.labels, **pasted})}",
    )


def _told(value: str, places: Sequence[str], label: str | None) -> str:
    count = "" if len(places) == 1 else f" ({len(places)} rows)"
    guess = "" if label is None else f" (did you mean {label}?)"
    return f"{value!r}{guess}{count}" if value else f"'' (empty){count}"


def _propose(value: str, labels: Sequence[str]) -> str | None:
    names = {normalize_name(label, ignore_case=True): label for label in labels}
    match = difflib.get_close_matches(normalize_name(value, ignore_case=True), names, n=1, cutoff=_NEAR)
    return names[match[0]] if match else None


def _case_hint(proposed: Mapping[str, str | None], source: DataSource) -> str:
    same = [
        value for value, label in proposed.items()
        if label is not None and normalize_name(value, ignore_case=True) == normalize_name(label, ignore_case=True)
    ]  # fmt: skip
    if source.labels_ignore_case or not same:
        return ""
    return f"labels_ignore_case: true reads {same[0]!r} as {proposed[same[0]]}; or "


def _as_yaml(labels: Mapping[str, str | None]) -> str:
    pairs = (
        f"{json.dumps(value, ensure_ascii=False)}: {'null' if label is None else json.dumps(label, ensure_ascii=False)}"
        for value, label in labels.items()
    )
    return f"{{{', '.join(pairs)}}}"


def _line(where: str) -> tuple[int, str]:
    """The sort key of a place in a file: its line."""
    digits = where.rpartition(":")[2].rpartition(" ")[2]
    return (int(digits) if digits.isdecimal() else 0), where
