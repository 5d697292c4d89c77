"""`edgetune.check_data`: a report on a recipe's data."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.api.public import public
from edgetune.recipe.load import Named, Overrides, load_recipe

if TYPE_CHECKING:
    from edgetune.data.check import DataReport
    from edgetune.data.meter import Meter
    from edgetune.models.locate import ModelFiles
    from edgetune.models.tokenizer import ModelTokenizer
    from edgetune.recipe.schema import Recipe


@public
def check_data(recipe: Named | Recipe, *, overrides: Overrides = ()) -> DataReport:
    """Counts, label balance, lengths, truncation, duplicates, and evaluation rows that leak into training.

    `leaks` is true when an evaluation row is in the training data, exactly or nearly. Raises RecipeError, DataError.
    """
    from edgetune.data.check import check_data as check
    from edgetune.data.load import load_data

    loaded = load_recipe(recipe, overrides)
    return check(load_data(loaded.data, loaded.task), loaded.data, _meter(loaded))


def _meter(recipe: Recipe) -> Meter:
    """Counts in tokens, or in words if the base's tokenizer is not available."""
    from edgetune.data.meter import WORDS
    from edgetune.errors import MissingComponent, ModelError
    from edgetune.models.load import open_tokenizer
    from edgetune.models.locate import TOKENIZER_PATTERNS, locate_model

    try:
        files = locate_model(recipe.base.model, revision=recipe.base.revision, patterns=TOKENIZER_PATTERNS)
        tokenizer = open_tokenizer(files)
    except (ModelError, MissingComponent, ModuleNotFoundError) as problem:
        events.note(f"lengths are counted in words, because the base's tokenizer is not available: {problem}")
        return WORDS
    return _token_meter(recipe, files, tokenizer)


def _token_meter(recipe: Recipe, files: ModelFiles, tokenizer: ModelTokenizer) -> Meter:
    """Counts in tokens, as training counts them for this kind of model."""
    from edgetune.data.answer_end import marks_in
    from edgetune.data.meter import Meter
    from edgetune.data.template import load_template
    from edgetune.data.tokenize import tokenize_examples
    from edgetune.data.tokenize_texts import tokenize_pairs, tokenize_texts
    from edgetune.models.config import read_config
    from edgetune.models.families import kind_of

    labels = recipe.data.labels
    encode, encode_whole = tokenizer.encode, partial(tokenizer.encode, add_special=True)
    kind = kind_of(read_config(files).model_type)

    def offsets(text: str) -> list[tuple[int, int]]:
        places: list[tuple[int, int]] = tokenizer.backend.encode(text, add_special_tokens=False).offsets
        return places

    if recipe.base.head == "classification" or kind == "encoder":
        return Meter("tokens", offsets, lambda rows, limit: tokenize_texts(rows, labels, encode_whole, limit))
    if kind == "encoder-decoder":
        return Meter("tokens", offsets, lambda rows, limit: tokenize_pairs(rows, encode_whole, limit))
    template = load_template(
        recipe.data.template,
        tokenizer_template=tokenizer.default_template,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
    )
    ends = marks_in(tokenizer.added)
    return Meter("tokens", offsets, lambda rows, limit: tokenize_examples(rows, template, encode, limit, ends))
