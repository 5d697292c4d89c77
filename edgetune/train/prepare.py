"""Data and tokenizer -> everything that training needs apart from the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune import console
from edgetune.data.load import load_examples
from edgetune.data.template import ChatTemplate, load_template
from edgetune.data.tokenize import TokenizedData, tokenize_examples
from edgetune.models.locate import ModelFiles, locate_model
from edgetune.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs apart from the weights, checked before they are loaded."""

    files: ModelFiles
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    train: TokenizedData
    evaluation: TokenizedData | None


def prepare(recipe: Recipe) -> Prepared:
    """Read and tokenize the data with the base's tokenizer and the recipe's chat template."""
    train_examples = load_examples(recipe.data.train, recipe.data, recipe.task)
    eval_examples = load_examples(recipe.data.eval, recipe.data, recipe.task) if recipe.data.eval else []
    files = locate_model(recipe.base.model, revision=recipe.base.revision)
    from edgetune.models.load import load_tokenizer, quiet_libraries

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
    return Prepared(files, tokenizer, template, train_data, evaluation)
