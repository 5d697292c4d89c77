"""Training objectives: one file each, chosen here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edgetune.data.template import ChatTemplate
    from edgetune.models.families import ModelKind
    from edgetune.recipe.schema import Recipe
    from edgetune.training.objectives.objective import Objective
    from edgetune.training.objectives.seq2seq import Tokenize


def objective_for(
    recipe: Recipe,
    kind: ModelKind,
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate | None,
    tokenize: Tokenize,
    *,
    max_new_tokens: int = 128,
) -> Objective:
    """The objective of a recipe on a model of this kind.

    `template` is a decoder's; `tokenize` turns examples into token ids as training does; `max_new_tokens` limits the
    summaries that an evaluation generates.
    """
    from edgetune.training.objectives.classification_head import ClassificationHead
    from edgetune.training.objectives.language_model import LanguageModel
    from edgetune.training.objectives.objective import Exam
    from edgetune.training.objectives.seq2seq import Seq2Seq

    exam = Exam(
        recipe.task, tuple(recipe.data.labels), max_new_tokens, recipe.train.eval_limit, tuple(recipe.train.metrics)
    )
    if recipe.base.head == "classification":
        return ClassificationHead(exam, tokenizer, tokenize)
    if kind == "encoder-decoder":
        return Seq2Seq(exam, tokenizer, tokenize, tokenizer.encode)
    assert template is not None
    return LanguageModel(exam, tokenizer, template)
