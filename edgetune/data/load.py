"""A recipe's data sources -> training and evaluation examples.

Every draw depends only on data.seed and its own name, not on train.seed or other sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgetune.data.balance import balance
from edgetune.data.convert import to_examples
from edgetune.data.draw import draw, repeat
from edgetune.data.example import Example
from edgetune.data.formats import FORMATS, check_maps
from edgetune.data.holdout import hold_out
from edgetune.data.places import NAMED
from edgetune.data.read import read_rows
from edgetune.errors import DataError, RecipeError
from edgetune.recipe.data import Data, DataSource


@dataclass(frozen=True)
class SourceCounts:
    """The number of rows of one source after each step: read, label map, cap, weight.

    `left_out` are the first few rows that the label map leaves out, or in which all answers have weight 0. `unread`
    counts the values of columns, and of keys of turns as `messages[].key`, that are not read.
    """

    source: str
    read: int
    labelled: int
    capped: int
    weighted: int
    left_out: tuple[str, ...] = ()
    unread: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedData:
    """Examples of both sides in the order of their sources, with counts.

    `train_sources` and `eval_sources` count the rows of each source. `held_out` training rows were held out for
    evaluation. `unbalanced` is the number of training examples before balancing (with the copies of weight).
    """

    train: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    train_sources: tuple[SourceCounts, ...]
    eval_sources: tuple[SourceCounts, ...]
    held_out: int
    unbalanced: int


def load_data(data: Data, task: str) -> LoadedData:
    """Read all sources of a recipe: label maps, caps and weights, then holdout, then balance of the training examples.

    Raises DataError naming file and line, also if a step leaves nothing or a label to balance has no example,
    RecipeError if a source does not fit the task, the labels or the prompt, and MissingComponent if a library is
    missing.
    """
    train, train_sources = _read_all(data.train, data, task)
    evaluation, eval_sources = _read_all(data.eval, data, task) if data.eval else ([], ())
    held_out = 0
    if data.holdout is not None:
        train, evaluation = hold_out(train, data.holdout, data.seed)
        held_out = len(evaluation)
    balanced = train if data.balance == "none" else balance(train, data.labels, data.balance, data.seed)
    return LoadedData(tuple(balanced), tuple(evaluation), train_sources, eval_sources, held_out, len(train))


def _read_all(sources: Sequence[DataSource], data: Data, task: str) -> tuple[list[Example], tuple[SourceCounts, ...]]:
    for source in sources:
        if task not in FORMATS[source.format].tasks:
            raise RecipeError(f"format is {source.format}, which task {task} cannot read", where=source.source)
        check_maps(source, data)
    read = [_read(source, data) for source in sources]
    examples = [example for part, _ in read for example in part]
    if not examples:
        raise DataError("there are no examples, because no data source is given")
    return examples, tuple(counts for _, counts in read)


def _read(source: DataSource, data: Data) -> tuple[list[Example], SourceCounts]:
    rows = read_rows(source)
    converted = to_examples(rows, source, data)
    labelled = converted.examples
    if not labelled:
        raise _nothing_left(len(rows), source)
    name = _name(source)
    capped = labelled
    if source.cap is not None:
        capped = [labelled[place] for place in draw(len(labelled), source.cap, f"{data.seed} cap {name}")]
    weighted = [capped[place] for place in repeat(len(capped), source.weight, f"{data.seed} weight {name}")]
    if not weighted:
        raise DataError(
            f"weight {source.weight:g} selects none of {len(capped)} rows", where=source.source, remedy="raise it"
        )
    counts = SourceCounts(
        source.source,
        len(rows),
        len(labelled),
        len(capped),
        len(weighted),
        converted.left_out[:NAMED],
        dict(converted.unread.most_common()),
    )
    return weighted, counts


def _nothing_left(rows: int, source: DataSource) -> DataError:
    if "label" in FORMATS[source.format].columns:
        return DataError(f"labels leaves out all {rows} rows", where=source.source, remedy="map a value to a label")
    return DataError(
        f"every answer in all {rows} rows has weight 0, so there is nothing to learn",
        where=source.source,
        remedy="give weight 1 to the answers to be learned",
    )


def _name(source: DataSource) -> str:
    """The name of a source's draws, independent of the file's folder and of the source's position in the recipe."""
    path = Path(source.source)
    return f"{path.name if path.is_absolute() else source.source} {source.subset} {source.split}"
