"""Reads and checks everything that training needs apart from the weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.data.example import Example
from edgetune.data.identity import keyed_rows
from edgetune.data.load import LoadedData, load_data
from edgetune.data.places import name_places
from edgetune.data.tokenize import TokenizedData
from edgetune.errors import RecipeError
from edgetune.models.config import ModelConfig, read_config
from edgetune.models.families import ModelKind, kind_of
from edgetune.models.locate import ModelFiles, locate_model
from edgetune.recipe.schema import Recipe
from edgetune.training.reading import reading_for

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edgetune.training.objectives.objective import Objective


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs apart from the weights."""

    files: ModelFiles
    config: ModelConfig
    kind: ModelKind
    tokenizer: PreTrainedTokenizerBase
    objective: Objective
    train: TokenizedData
    evaluation: TokenizedData | None
    questions: tuple[Example, ...]
    """The evaluation's examples, for the metrics beside the loss."""


def prepare(recipe: Recipe) -> Prepared:
    """Read the data and tokenize it for the recipe's base.

    Raises RecipeError when the base cannot do the recipe's task, DataError and ModelError.
    """
    data = load_data(recipe.data, recipe.task)
    _tell_of_rows(data, recipe)
    _warn_of_leaks(data)
    files = locate_model(recipe.base.model, revision=recipe.base.revision)
    config = read_config(files)
    kind = kind_of(config.model_type)
    check_task(recipe, kind, config.model_type)
    from edgetune.models.load import load_tokenizer, quiet_libraries
    from edgetune.training.objectives import objective_for

    quiet_libraries()
    tokenizer = load_tokenizer(files)
    reading = reading_for(recipe, kind, config, tokenizer)
    train, limits = reading.read_training(data.train, recipe)
    questions = reading.questions(data.evaluation, limits)
    evaluation = reading.read_evaluation(questions, limits) if questions else None
    objective = objective_for(
        recipe,
        kind,
        tokenizer,
        reading.template,
        lambda examples: reading.tokenize(examples, limits.length).examples,
        max_new_tokens=limits.target or limits.length,
    )
    return Prepared(files, config, kind, tokenizer, objective, train, evaluation, questions)


def _tell_of_rows(data: LoadedData, recipe: Recipe) -> None:
    """Note rows that are left out, keys that are not read, and empty texts; `edgetune data check` shows more."""
    others = [source for source in data.eval_sources if source not in data.train_sources]
    for source in (*data.train_sources, *others):
        name = Path(source.source).name
        if source.left_out:
            count = source.read - source.labelled
            where = name_places(source.left_out, count)
            why = "by the label map" if recipe.data.labels else "because all their answers have weight 0"
            events.note(f"{name}: {count} of {source.read} rows are left out {why} ({where})")
        if recipe.task == "chat" and source.unread:
            tell = events.warn if any("[]." in key for key in source.unread) else events.note
            found = ", ".join(f"{key} ({count})" for key, count in source.unread.items())
            tell(f"{name}: keys that are not read (and how many rows have them): {found}")
    empty = [where for where, row in {row.where: row for row in data.train}.items() if row.is_empty]
    if empty:
        rows = "row has" if len(empty) == 1 else "rows have"
        events.warn(
            f"{len(empty)} training {rows} an empty text or answer, and the model learns it ({name_places(empty)}); "
            "remove such rows unless you want them"
        )


def _warn_of_leaks(data: LoadedData) -> None:
    """Warn of evaluation rows that are in the training data; `edgetune data check` also finds near duplicates."""
    if not data.evaluation:
        return
    known = {key for key, _ in keyed_rows(data.train)} - {""}
    asked = [key for key, _ in keyed_rows(data.evaluation)]
    leaked = sum(key in known for key in asked)
    if leaked:
        events.warn(
            f"{leaked} of {len(asked)} evaluation rows are also in the training data, which makes the evaluation look "
            "better than it is; `edgetune data check` lists them"
        )


def check_task(recipe: Recipe, kind: ModelKind, family: str) -> None:
    """Raise RecipeError where this kind of model cannot do the recipe's task."""
    if recipe.base.head == "lm" and kind == "encoder":
        raise RecipeError(
            f"{recipe.base.model} is an encoder ({family}), which cannot write text",
            where="base.head",
            remedy="set it to classification (with task classify), or use a decoder or an encoder-decoder",
        )
    if recipe.task == "chat" and kind == "encoder-decoder":
        raise RecipeError(
            f"{recipe.base.model} is an encoder-decoder ({family}), which cannot have conversations",
            where="task",
            remedy="set it to summarize or classify, or use a decoder",
        )
