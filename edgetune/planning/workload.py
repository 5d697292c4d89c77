"""The workload of a training: its largest batch, and its numbers of examples, tokens and updates.

They come from the data where it is local, and otherwise from the limits in the recipe.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from edgetune.data.tokenize import UNSUPERVISED, TokenizedExample
from edgetune.models.families import ModelKind
from edgetune.planning.base import PlannedBase
from edgetune.recipe.data import DATA_SUFFIXES, DataSource, Length
from edgetune.recipe.schema import Recipe

if TYPE_CHECKING:
    from edgetune.training.objectives.objective import Objective

ASSUMED_TOKENS = 1024
"""Length of an example where the recipe has a percentile and the data is not local."""

ASSUMED_LABEL_TOKENS = 8
"""Length of a label with its end-of-turn markup; the recipes' labels have 2 to 5 tokens."""

_SLICE = re.compile(r"\[(?P<start>\d*):(?P<stop>\d+)\]$")
_CANDIDATES = 8


@dataclass(frozen=True)
class Workload:
    """The examples of the largest batch, and the numbers of the whole run; None where only the data would tell.

    `tokens_per_epoch` counts computed tokens, padding included.
    """

    objective: Objective
    largest: tuple[TokenizedExample, ...]
    examples: int | None
    steps: int | None
    tokens_per_epoch: int | None
    assumes: tuple[str, ...]


def find_workload(recipe: Recipe, base: PlannedBase, kind: ModelKind, *, processes: int) -> Workload:
    """Read local data, or assume the recipe's limits. Raises DataError and RecipeError as training does."""
    if not all(map(_is_local, (*recipe.data.train, *recipe.data.eval))):
        return _assumed(recipe, kind, _told_count(recipe), processes, "the data is not on this machine")
    if base.has_weights:
        return _from_data(recipe, processes)
    from edgetune.data.load import load_data

    count = len(load_data(recipe.data, recipe.task).train)
    return _assumed(recipe, kind, count, processes, "the base's tokenizer is not on this machine")


def _from_data(recipe: Recipe, processes: int) -> Workload:
    from edgetune.training.batches import training_batches
    from edgetune.training.prepare import prepare
    from edgetune.training.settings import total_steps

    prepared, train = prepare(recipe), recipe.train
    examples = prepared.train.examples
    lengths = [len(example.input_ids) for example in examples]
    batches: list[list[int]] = []
    seen = None if train.max_steps is None else train.max_steps * train.accumulate
    for rank in range(processes):
        sampler = training_batches(recipe, prepared.train, rank=rank, processes=processes)
        batches += [[place for place in batch if place < len(examples)] for batch in islice(sampler, seen)]
    filled = [batch for batch in batches if batch]
    largest = sorted(filled, key=lambda batch: -sum(lengths[place] for place in batch))[:_CANDIDATES]
    largest += sorted(filled, key=lambda batch: -max(lengths[place] for place in batch))[:_CANDIDATES]
    candidates = [tuple(examples[place] for place in batch) for batch in largest]
    return Workload(
        prepared.objective,
        max(candidates, key=lambda batch: _weight(prepared.objective.collate(batch))),
        len(examples),
        total_steps(recipe, len(sampler)),
        sum(lengths),
        (),
    )


def _weight(batch: Any) -> int:
    """The size of a batch: its computed tokens, and more for supervised ones, each of which has a row of logits."""
    return int(batch["input_ids"].numel() + 8 * batch["supervised"])


def _assumed(recipe: Recipe, kind: ModelKind, count: int | None, processes: int, why: str) -> Workload:
    """The workload where every example has the recipe's maximum length, and no two share their beginning."""
    from edgetune.training.objectives import objective_for
    from edgetune.training.settings import total_steps

    train = recipe.train
    padding: Any = SimpleNamespace(pad_token_id=0, encode=lambda text: [], eos_token_id=0)
    objective = objective_for(recipe, kind, padding, padding, lambda examples: [])
    batch = tuple(_longest(recipe, kind, first) for first in range(train.batch_size))
    steps = train.max_steps
    if steps is None and count is not None:
        steps = total_steps(recipe, math.ceil(count / (train.batch_size * processes)))
    tokens = len(batch[0].input_ids)
    assumes = [f"{why}, so every example is assumed to have {tokens:,} tokens, the recipe's limit"]
    if count is None and train.max_steps is None:
        assumes.append("the numbers of examples and steps are unknown without the data")
    return Workload(objective, batch, count, steps, None if count is None else count * tokens, tuple(assumes))


def _longest(recipe: Recipe, kind: ModelKind, first: int) -> TokenizedExample:
    data = recipe.data
    length = _tokens(data.max_length, ASSUMED_TOKENS)
    answer = _tokens(data.max_target_length, length) if recipe.task != "classify" else ASSUMED_LABEL_TOKENS
    if recipe.base.head == "classification":
        return TokenizedExample((first, *[0] * (length - 1)), (0,))
    if kind == "encoder-decoder":
        source = min(length, _tokens(data.max_source_length, length))
        return TokenizedExample((first, *[0] * (source - 1)), (0,) * min(answer, length))
    supervised = min(answer, length - 1)
    labels = (UNSUPERVISED,) * (length - supervised) + (0,) * supervised
    return TokenizedExample((first, *[0] * (length - 1)), labels)


def _tokens(length: Length | None, otherwise: int) -> int:
    return length if isinstance(length, int) else otherwise


def _told_count(recipe: Recipe) -> int | None:
    """The number of examples by the recipe's slices and caps; None where only the data tells."""
    if recipe.data.balance != "none":
        return None
    counts = [_told_rows(source) for source in recipe.data.train]
    if None in counts:
        return None
    total = sum(count for count in counts if count is not None)
    held_out = recipe.data.holdout or 0
    return total - round(total * held_out if held_out < 1 else held_out)


def _told_rows(source: DataSource) -> int | None:
    found = _SLICE.search(source.split)
    sliced = int(found["stop"]) - int(found["start"] or 0) if found else None
    bounds = [bound for bound in (sliced, source.cap) if bound is not None]
    return round(min(bounds) * source.weight) if bounds else None


def _is_local(source: DataSource) -> bool:
    return source.source.lower().endswith(DATA_SUFFIXES) or Path(source.source).exists()
