"""Tokenizes examples for a base: as conversations, as texts with a label, or as texts with a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edgetune import events
from edgetune.data.answer_end import NEVER_ENDS, marks_in
from edgetune.data.balance import class_weights, weigh
from edgetune.data.cut import cut_sources, cut_targets
from edgetune.data.example import Example
from edgetune.data.places import name_places
from edgetune.data.template import ChatTemplate, load_template
from edgetune.data.tokenize import TokenizedData, tokenize_examples
from edgetune.data.tokenize_texts import tokenize_pairs, tokenize_texts
from edgetune.errors import RecipeError
from edgetune.models.config import ModelConfig
from edgetune.models.families import ModelKind, find_family
from edgetune.recipe.data import Length
from edgetune.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class CutLengths:
    """The limits of training in tokens, for whole examples, texts and answers. Evaluation has the same."""

    length: int
    source: int | None
    target: int | None


@dataclass(frozen=True)
class ExampleReader:
    """Tokenizes examples for one kind of model. `template` is that of a decoder that answers in words."""

    kind: ModelKind
    template: ChatTemplate | None
    labels: tuple[str, ...]
    _tokenizer: PreTrainedTokenizerBase
    _positions: int | None

    def read_training(self, examples: Sequence[Example], recipe: Recipe) -> tuple[TokenizedData, CutLengths]:
        """Cut, weight and tokenize the training examples by the recipe. Percentiles are resolved here."""
        data = recipe.data
        source = target = None
        if data.max_source_length is not None:
            cut = cut_sources(examples, self._offsets, data.max_source_length)
            examples, source = cut.examples, cut.limit_tokens
        if data.max_target_length is not None:
            cut = cut_targets(examples, self._offsets, data.max_target_length)
            examples, target = cut.examples, cut.limit_tokens
        if recipe.train.class_weights == "balanced":
            examples = weigh(examples, class_weights(examples, data.labels))
        read = self.tokenize(examples, data.max_length)
        if self._positions is not None and read.max_length_tokens > self._positions:
            read = self.tokenize(examples, self._positions)
        _note_losses(read, "training")
        if read.unended:
            events.warn(f"{read.unended} of {len(read.lengths)} training {NEVER_ENDS}")
        return read, CutLengths(read.max_length_tokens, source, target)

    def read_evaluation(self, questions: Sequence[Example], limits: CutLengths) -> TokenizedData:
        """Tokenize the evaluation's examples, whose texts are cut already, for the loss."""
        if limits.target is not None:
            questions = cut_targets(questions, self._offsets, limits.target).examples
        read = self.tokenize(questions, limits.length)
        _note_losses(read, "evaluation")
        return read

    def questions(self, examples: Sequence[Example], limits: CutLengths) -> tuple[Example, ...]:
        """The evaluation's examples with their texts cut as in training, and their answers whole."""
        if limits.source is None or not examples:
            return tuple(examples)
        return cut_sources(examples, self._offsets, limits.source).examples

    def tokenize(self, examples: Sequence[Example], max_length: Length) -> TokenizedData:
        if self.template is not None:
            ends = marks_in(self._tokenizer.added_tokens_decoder)
            encode = partial(self._tokenizer.encode, add_special_tokens=False)
            return tokenize_examples(examples, self.template, encode, max_length, ends)
        if self.labels:
            return tokenize_texts(examples, self.labels, self._tokenizer.encode, max_length)
        return tokenize_pairs(examples, self._tokenizer.encode, max_length)

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        if not self._tokenizer.is_fast:
            raise RecipeError(
                "this base's tokenizer does not report the positions of its tokens in a text",
                where="data.max_source_length",
                remedy="remove it and data.max_target_length, or save the tokenizer as tokenizer.json",
            )
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets: list[tuple[int, int]] = found["offset_mapping"]
        return offsets


def reading_for(
    recipe: Recipe, kind: ModelKind, config: ModelConfig, tokenizer: PreTrainedTokenizerBase
) -> ExampleReader:
    """The reader for a base of this kind. Raises RecipeError where the base has no chat template."""
    classifies = recipe.base.head == "classification"
    template = None
    if kind == "decoder" and not classifies:
        template = load_template(
            recipe.data.template,
            tokenizer_template=_default(tokenizer.chat_template),
            bos_token=tokenizer.bos_token or "",
            eos_token=tokenizer.eos_token or "",
        )
        tokenizer.chat_template = template.source
    labels = tuple(recipe.data.labels) if classifies else ()
    return ExampleReader(kind, template, labels, tokenizer, _positions(kind, config))


def _default(template: str | dict[str, str] | None) -> str | None:
    """A tokenizer's template; of several, the one that Transformers uses by default."""
    return template.get("default") if isinstance(template, dict) else template


def _positions(kind: ModelKind, config: ModelConfig) -> int | None:
    """How many tokens an encoder has embeddings for; None for other kinds, whose positions have no limit."""
    if kind != "encoder" or config.get("max_position_embeddings") is None:
        return None
    unused = 1 + int(config.get("pad_token_id", 1)) if find_family(config.model_type).positions_after_padding else 0
    return int(config.require("max_position_embeddings")) - unused


def _note_losses(read: TokenizedData, name: str) -> None:
    for text in read.warnings:
        events.warn(f"{name} data: {text}")
    for text in read.notes:
        events.note(f"{name} data: {text}")
    if not (read.truncated or read.dropped):
        return
    where = name_places(read.dropped_rows, read.dropped)
    dropped = (
        f", {read.dropped} left out because the cut removed all supervised tokens ({where})" if read.dropped else ""
    )
    events.note(f"{name} data: {read.truncated} examples cut to {read.max_length_tokens} tokens{dropped}")
