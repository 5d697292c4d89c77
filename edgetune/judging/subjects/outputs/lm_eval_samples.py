"""The sample files of EleutherAI's lm-evaluation-harness (`--log_samples`) -> rows of outputs.

A row has the document (`doc`) with its number (`doc_id`), what the model was asked (`arguments`: the prompt, and the
continuation where its likelihood was asked for), and what came back (`resps`, and `filtered_resps` after the task's
filter): a text, or the log-likelihood in nats of each continuation and whether it is the greediest one. Numbers may be
written as texts. https://github.com/EleutherAI/lm-evaluation-harness
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgetune import events
from edgetune.data.columns import shown
from edgetune.data.read import Row
from edgetune.errors import DataError
from edgetune.judging.suites.items import Item, name_of

CHOICES = "choices"
"""The column of the continuations that were compared: pairs of text and log-likelihood in nats."""

_DOC_ID, _DOC, _ARGUMENTS, _FILTERED, _RAW, _FILTER = "doc_id", "doc", "arguments", "filtered_resps", "resps", "filter"
_SAMPLE = "sample"
"""The column that keeps the row as it was, to match it with an item."""

_ENOUGH = 0.5
"""The share of the items whose text is in the document that has their place."""

_LONG = 15
"""Characters of a field that no two documents are likely to have."""


def are_samples(rows: Sequence[Row]) -> bool:
    """True for rows of a sample file."""
    return bool(rows) and all(_DOC_ID in row.values and {_FILTERED, _RAW} & set(row.values) for row in rows)


def read_samples(rows: Sequence[Row], reference: str) -> list[Row]:
    """Rows with the columns `id` (the document's number) and `output`, `choices` or `nll_nats`, in that order.

    What the task's filter left is the output; where a file has the outcomes of several filters, the raw output is, and
    a note says so. Raises DataError naming the row for what is no such outcome.
    """
    filters = list(dict.fromkeys(row.values.get(_FILTER) for row in rows))
    several = len(filters) > 1
    if several:
        names = ", ".join(map(str, filters))
        events.note(
            f"{reference}: it has the results of {len(filters)} filters ({names}), so the raw outputs are judged; "
            "to judge what one filter extracts, keep only its rows"
        )
        rows = [row for row in rows if row.values.get(_FILTER) == filters[0]]
    samples = [_sample(row, raw=several) for row in rows]
    return sorted(samples, key=lambda row: _order(row.values["id"]))


def match_samples(rows: Sequence[Row], items: Sequence[Item], reference: str) -> list[Row]:
    """Each item's row: by a field of the documents that holds the items' ids, by `doc_id`, or by order.

    The item's text must be in the document or its prompt, which tells whether a pairing is right. Raises DataError
    where none is.
    """
    wanted = [item.id for item in items]
    for names in _namings(rows):
        by_name = dict(zip(names, rows, strict=True))
        if len(by_name) == len(rows) and by_name.keys() >= set(wanted):
            found = [by_name[name] for name in wanted]
            if _agree(found, items):
                return found
    if len(rows) == len(items) and _agree(rows, items):
        return list(rows)
    raise DataError(
        f"its {len(rows)} documents do not match the suite's {len(items)} items: no field, doc_id or order of theirs "
        "leads to the items' texts",
        where=reference,
        remedy="judge the same documents, or make the suite of this file: {source: FILE, format: prompt, id: doc_id, "
        "columns: {prompt: arguments.gen_args_0.arg_0, reference: target}}",
    )


def _sample(row: Row, *, raw: bool) -> Row:
    values = row.values
    outcome = values[_FILTERED] if _FILTERED in values and not raw else values.get(_RAW)
    if not isinstance(outcome, list) or not outcome:
        raise DataError(f"{_FILTERED} must hold what the model gave, not {shown(outcome)}", where=row.where)
    asked = _arguments(values.get(_ARGUMENTS))
    kept: dict[str, Any] = {"id": name_of(values[_DOC_ID], _DOC_ID, row.where), _SAMPLE: values}
    if any(isinstance(arguments[1], dict) for arguments in asked if len(arguments) > 1):
        return Row(row.where, {**kept, "output": _first_text(outcome, row.where)})
    likelihoods = [_likelihood(value) if asked or isinstance(value, list) else None for value in outcome]
    if all(value is None for value in likelihoods):
        return Row(row.where, {**kept, "output": _first_text(outcome, row.where)})
    if any(value is None or not math.isfinite(value) for value in likelihoods):
        raise DataError(f"{_FILTERED} must hold log-likelihoods, not {shown(outcome)}", where=row.where)
    scores = [value for value in likelihoods if value is not None]
    if len(scores) == 1:
        return Row(row.where, {**kept, "nll_nats": -scores[0]})
    texts = _continuations(asked, len(scores))
    pairs = list(zip(texts, scores[: len(texts)], strict=True))
    best = max(pairs, key=lambda pair: pair[1])[0]
    return Row(row.where, {**kept, "output": best, CHOICES: pairs})


def _arguments(value: Any) -> list[list[Any]]:
    """What was asked, a list for each request: lists, or the objects that they are written as."""
    requests = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [
        list(each.values()) if isinstance(each, dict) else list(each) if isinstance(each, list) else [each]
        for each in requests
    ]


def _continuations(asked: Sequence[Sequence[Any]], count: int) -> list[str]:
    """The texts that were compared. Where they are all the same (the contexts differ), their numbers from 1.

    A task that also asks for the continuations without their context has those behind the others.
    """
    texts = [str(arguments[1]).strip() for arguments in asked if len(arguments) > 1]
    if len(texts) != count:
        return [str(number) for number in range(1, count + 1)]
    half = count // 2
    if count % 2 == 0 and texts[:half] == texts[half:] and asked[0][0] and not asked[half][0]:
        return texts[:half]
    return texts if len(set(texts)) == count else [str(number) for number in range(1, count + 1)]


def _likelihood(value: Any) -> float | None:
    """A log-likelihood, by itself or before whether it is the greediest; None for a text."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        if len(value) != 2 or str(value[1]).lower() not in ("true", "false", "0", "1", "0.0", "1.0"):
            return None
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _first_text(value: Any, where: str) -> str:
    """The first of the texts that were generated, as lm-evaluation-harness takes it."""
    while isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, str):
        raise DataError(f"{_FILTERED} must hold text, not {shown(value)}", where=where)
    return value


def _namings(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Ways to name the rows: by each scalar field of their documents, `id` first, and by the document's number."""
    documents = [row.values[_SAMPLE].get(_DOC) for row in rows]
    if all(isinstance(document, dict) for document in documents):
        shared = Counter(field for document in documents for field in document)
        for field in sorted((field for field, count in shared.items() if count == len(rows)), key=lambda f: f != "id"):
            values = [document[field] for document in documents]
            if all(isinstance(value, str | int) and not isinstance(value, bool) for value in values):
                yield [str(value) for value in values]
    yield [row.values["id"] for row in rows]


def _agree(rows: Sequence[Row], items: Sequence[Item]) -> bool:
    found = sum(_is_about(row.values[_SAMPLE], item.text) for row, item in zip(rows, items, strict=True))
    return found > _ENOUGH * len(items)


def _is_about(sample: Mapping[str, Any], text: str) -> bool:
    """True where the document or its prompt has the text, or the text a longer field of the document."""
    text = _squeezed(text)
    said = [_squeezed(each) for each in _strings([sample.get(_DOC), sample.get(_ARGUMENTS)])]
    return any(text in each for each in said) or any(len(each) >= _LONG and each in text for each in said)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (0, name)
