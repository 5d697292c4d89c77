"""A model in torch that answers items, with the code that training uses for its evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.data.example import Example
from edgetune.data.reasoning import opened_reasoning
from edgetune.data.template import ChatTemplate, load_template
from edgetune.data.tokenize import UNSUPERVISED, TokenizedExample
from edgetune.data.tokenize_texts import tokenize_pairs, tokenize_texts
from edgetune.errors import NumericalError
from edgetune.events import SILENT_PROGRESS
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.written import written_answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.models.families import ModelKind
from edgetune.models.load import resolve_dtype
from edgetune.runtime.perplexity import windows
from edgetune.training.objectives.adapted import on_device_of
from edgetune.training.objectives.classification_head import ClassificationHead
from edgetune.training.objectives.language_model import LanguageModel
from edgetune.training.objectives.objective import Exam, Objective
from edgetune.training.objectives.rest import at_rest
from edgetune.training.objectives.seq2seq import Seq2Seq
from edgetune.weights.source import ModelSource
from edgetune.weights.whole_model import load_adapted

LONGEST_TOKENS = 4096
"""Longer inputs are cut, or read in windows, whatever the model could take."""

_UNUSED = ChatTemplate("", "", "")


@dataclass(frozen=True)
class TorchModel:
    """A base, its adapter folded around it, and its tokenizer. `head_labels` is empty where it writes text."""

    model: Any
    tokenizer: Any
    family: ModelKind
    head_labels: tuple[str, ...]
    longest_tokens: int
    where: str

    @classmethod
    def load(
        cls,
        source: ModelSource,
        family: ModelKind,
        *,
        settings: Mapping[str, Any],
        head_labels: tuple[str, ...],
        longest_tokens: int | None,
    ) -> TorchModel:
        """Load the base as `settings` (a recipe's base section, or nothing) says, and put the adapter on it."""
        model = load_adapted(
            source,
            dtype=resolve_dtype(settings.get("dtype", "auto")),
            quantize=settings.get("quantize", "none"),
            double_quantization=settings.get("double_quantization", True),
            labels=head_labels or None,
        )
        limit = min(longest_tokens or LONGEST_TOKENS, LONGEST_TOKENS)
        return cls(model, source.load_tokenizer(), family, head_labels, limit, source.base.reference)

    def answer(self, items: Sequence[Item], suite: Suite) -> list[Answer]:
        """The answers to some items. Raises NumericalError for a likelihood that is no number."""
        objective = self._objective(suite)
        objective.attach(self.model)
        with at_rest(self.model):
            if suite.task == "perplexity":
                return [self._measure(objective, item) for item in items]
            questions = [Example(item.messages, item.where, answered=False) for item in items]
            if self.head_labels or (suite.task == "classify" and suite.scoring == "likelihood"):
                chosen = objective.choose(self.model, questions, SILENT_PROGRESS)
                return [Answer(item.id, predicted=label) for item, label in zip(items, chosen, strict=True)]
            answers = objective.answer(self.model, questions, SILENT_PROGRESS)
        return [
            written_answer(
                item.id,
                self._opened(item) + written.marked,
                suite,
                finish="stop" if written.ended else "length",
            )
            for item, written in zip(items, answers, strict=True)
        ]

    def _objective(self, suite: Suite) -> Objective:
        tokenizer, limit = self.tokenizer, self.longest_tokens
        if self.head_labels:
            labels = self.head_labels
            return ClassificationHead(
                Exam("classify", labels),
                tokenizer,
                lambda examples: tokenize_texts(examples, labels, tokenizer.encode, limit).examples,
            )
        exam = Exam("classify", tuple(suite.labels), max_new_tokens=suite.generation.max_tokens)
        if self.family == "encoder-decoder":
            return Seq2Seq(
                exam,
                tokenizer,
                lambda examples: tokenize_pairs(examples, tokenizer.encode, limit).examples,
                tokenizer.encode,
            )
        # A likelihood is computed from ids, which `_ids` makes.
        template = _UNUSED if suite.task == "perplexity" else self._template()
        return LanguageModel(exam, tokenizer, template)

    def _opened(self, item: Item) -> str:
        """The mark with which the chat template has begun the model's reasoning for it."""
        if self.family == "encoder-decoder":
            return ""
        return opened_reasoning(self._template().render(item.messages, add_generation_prompt=True))

    def _template(self) -> ChatTemplate:
        return load_template(
            "chat",
            tokenizer_template=self.tokenizer.chat_template,
            bos_token=self.tokenizer.bos_token or "",
            eos_token=self.tokenizer.eos_token or "",
        )

    def _measure(self, objective: Objective, item: Item) -> Answer:
        """The text's likelihood."""
        ids, scored_from = self._ids(item)
        nats = 0.0
        for start, done, stop in windows(len(ids), scored_from, self.longest_tokens):
            window = TokenizedExample(tuple(ids[start:stop]), (UNSUPERVISED,) * (done - start) + tuple(ids[done:stop]))
            batch = on_device_of(self.model, objective.collate([window]))
            nats += float(objective.loss(self.model, batch))
        if math.isnan(nats):
            raise NumericalError(
                f"the likelihood of {item.where} is no number", where=self.where, remedy="the weights are damaged"
            )
        size = len(item.text.encode("utf-8", "replace"))
        return Answer(item.id, nll_nats=nats, nll_tokens=len(ids) - scored_from, nll_bytes=size)

    def _ids(self, item: Item) -> tuple[list[int], int]:
        """The ids of a text with what is before it, and how many of them are only read."""
        if not item.messages:
            # A tokenizer without a beginning-of-text token leaves nothing before the first one, which is not scored.
            ids: list[int] = self.tokenizer.encode(item.text)
            return ids, 1
        prompt, answer = self._template().split_answer(item.messages, item.text)
        before = [token for text in prompt for token in self._encode(text)]
        return before + self._encode(answer), len(before)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids
