"""Data and tokenizer -> everything that training needs apart from the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune import console
from edgetune.data.example import Example
from edgetune.data.load import load_examples
from edgetune.data.template import ChatTemplate, load_template
from edgetune.data.tokenize import TokenizedData, TokenizedExample, tokenize_examples
from edgetune.models.config import read_config
from edgetune.models.families import Kind, kind_of
from edgetune.models.locate import ModelFiles, locate_model
from edgetune.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edgetune.train.objectives.objective import Objective


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs apart from the weights, checked before they are loaded."""

    files: ModelFiles
    kind: Kind
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate | None
    objective: Objective
    train: TokenizedData
    evaluation: TokenizedData | None
    questions: tuple[Example, ...]
    """The evaluation's examples as they were read, for the metrics beside the loss."""


def prepare(recipe: Recipe) -> Prepared:
    """Read and tokenize the data with the base's tokenizer and the recipe's chat template."""
    train_examples = load_examples(recipe.data.train, recipe.data, recipe.task)
    eval_examples = load_examples(recipe.data.eval, recipe.data, recipe.task) if recipe.data.eval else []
    files = locate_model(recipe.base.model, revision=recipe.base.revision)
    kind = kind_of(read_config(files).model_type)
    from edgetune.models.load import load_tokenizer, quiet_libraries
    from edgetune.train.objectives import objective_for

    quiet_libraries()
    tokenizer = load_tokenizer(files)
    template = load_template(
        recipe.data.template,
        tokenizer_template=tokenizer.chat_template,
        bos_token=tokenizer.bos_token or "",
        eos_token=tokenizer.eos_token or "",
    )
    tokenizer.chat_template = template.source

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    train_data = tokenize_examples(train_examples, template, encode, recipe.data.max_length)
    limit = train_data.max_length_tokens
    evaluation = tokenize_examples(eval_examples, template, encode, limit) if eval_examples else None
    for name, data in (("training", train_data), ("evaluation", evaluation)):
        if data is not None and (data.truncated or data.dropped):
            console.note(
                f"{name} data: {data.truncated} examples cut to {limit} tokens, {data.dropped} left out because "
                "nothing supervised was left of them"
            )

    def tokenize(examples: Sequence[Example]) -> Sequence[TokenizedExample]:
        return tokenize_examples(examples, template, encode, limit).examples

    objective = objective_for(recipe, kind, tokenizer, template, tokenize)
    return Prepared(files, kind, tokenizer, template, objective, train_data, evaluation, tuple(eval_examples))
