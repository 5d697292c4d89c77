"""A recipe's data sources -> examples."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.data.example import Example
from edgetune.data.formats import check_maps, to_example
from edgetune.data.read import read_rows
from edgetune.errors import DataError, RecipeError
from edgetune.recipe.data import Data, DataSource


def load_examples(sources: Sequence[DataSource], data: Data, task: str) -> list[Example]:
    """All examples of these sources (`data.train` or `data.eval`), in the order of the files.

    Raises DataError naming the file and line, also when there is no example at all, RecipeError when a source does not
    fit the task or the recipe's labels, and MissingComponent when reading needs a library that is not installed.
    """
    for source in sources:
        if (source.format == "text-label") != (task == "classify"):
            raise RecipeError(f"format is {source.format}, which task {task} cannot read", where=source.source)
        check_maps(source, data)
    examples = [to_example(row, source, data) for source in sources for row in read_rows(source)]
    if not examples:
        raise DataError("there are no examples, because no data source is given")
    return examples
