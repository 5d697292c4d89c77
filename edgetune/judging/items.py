"""A suite's data -> the items that every model is asked, each with an id by which two models are paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetune.data.example import Message
from edgetune.data.formats import check_maps, to_example
from edgetune.data.read import read_rows
from edgetune.errors import DataError
from edgetune.judging.suite import Suite, hash_value
from edgetune.recipe.data import Data

ID_COLUMN = "id"


@dataclass(frozen=True)
class Item:
    """One question with its answer.

    `messages` is what the model is asked, `text` what the suite's prompt asks about, `gold` the right label. `where`
    names file and row, without the folder.
    """

    id: str
    where: str
    text: str
    messages: tuple[Message, ...]
    gold: str


def read_items(suite: Suite) -> tuple[Item, ...]:
    """Read a suite's data. An item's id is its column `id`, or its number in the suite, counted from 1.

    Raises DataError naming file and row: what cannot be read, an unknown label, an id that is used twice.
    """
    data = Data(train=suite.data, labels=suite.labels, prompt=suite.prompt)
    items: list[Item] = []
    seen: dict[str, str] = {}
    for source in suite.data:
        check_maps(source, data)
        for row in read_rows(source):
            example = to_example(row, source, data)
            if example is None:
                continue
            given = row.values.get(ID_COLUMN)
            item = Item(
                id=str(len(items) + 1 if given is None else given),
                where=Path(row.where).name,
                text=example.source.text if example.source else "",
                messages=example.messages[:-1],
                gold=example.messages[-1].content,
            )
            if item.id in seen:
                raise DataError(
                    f"the id {item.id} is used twice, first at {seen[item.id]}",
                    where=row.where,
                    remedy="give every item an id of its own, or leave the column out",
                )
            seen[item.id] = row.where
            items.append(item)
    return tuple(items)


def hash_items(items: Sequence[Item]) -> str:
    """SHA-256 of ids, texts and answers in their order; where the files lie does not matter."""
    return hash_value([[item.id, item.text, item.gold] for item in items])
