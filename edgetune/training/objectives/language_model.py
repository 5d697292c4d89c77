"""Causal language modelling: a decoder learns the supervised part of each conversation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

from torch import Tensor, nn

from edgetune.data.example import Example, Message
from edgetune.data.reasoning import opened_reasoning
from edgetune.data.template import ChatTemplate
from edgetune.data.tokenize import UNSUPERVISED, Encode, TokenizedExample
from edgetune.errors import DataError
from edgetune.events import ProgressHandle
from edgetune.training.objectives.adapted import base_model, has_dropout, has_virtual_tokens, on_device_of
from edgetune.training.objectives.generation import Ending, GeneratedText, generate
from edgetune.training.objectives.objective import Exam, Objective
from edgetune.training.objectives.packing import (
    LanguageBatch,
    can_pack,
    has_transformers_layers,
    pack_answers,
    pack_batch,
    pad_batch,
    plain_attention,
    use_packed_attention,
)
from edgetune.training.objectives.questions import Question, ask, in_batches, likeliest
from edgetune.training.objectives.supervised import supervised_logits, supervised_nll

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LanguageModel(Objective):
    """Next-token prediction by a causal language model, packed where its attention allows it."""

    def __init__(self, exam: Exam, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> None:
        super().__init__(exam)
        self._tokenizer, self._template = tokenizer, template
        self._encode: Encode = partial(tokenizer.encode, add_special_tokens=False)
        self._head: nn.Module | None = None
        self._packs = self._shares_prompt = False

    def attach(self, model: nn.Module) -> None:
        """Find the output layer, and use packed rows if the model supports them."""
        base = base_model(model)
        self._head = base.get_output_embeddings()
        self._packs = can_pack(base.config) and has_transformers_layers(base) and not has_virtual_tokens(model)
        self._shares_prompt = not has_dropout(model)
        if self._packs:
            use_packed_attention(base)

    def collate(self, examples: Sequence[TokenizedExample]) -> LanguageBatch:
        """All examples in one row, or one row each."""
        if self._packs:
            return pack_batch(examples, share_prompt=self._shares_prompt)
        return pad_batch(examples, self._tokenizer.pad_token_id)

    def loss(self, model: nn.Module, batch: LanguageBatch) -> Tensor:
        assert self._head is not None
        return supervised_nll(model, self._head, batch)[0]

    def choose(self, model: nn.Module, examples: Sequence[Example], progress: ProgressHandle) -> list[str]:
        """The label with the highest log-likelihood, end-of-turn markup included, as in `edgetune classify`."""
        questions = [ask(example, self.exam.labels, self._template, self._encode) for example in examples]
        return in_batches(questions, self._row_tokens, lambda batch: self._likeliest(model, batch), progress)

    def answer(self, model: nn.Module, examples: Sequence[Example], progress: ProgressHandle) -> list[GeneratedText]:
        """The generated answer to each prompt, up to its end-of-turn markup."""
        if not examples:
            return []
        prompts = [self._prompt(example) for example in examples]
        with plain_attention(base_model(model)):
            return generate(
                model, prompts, self._tokenizer, self._ending(examples[0]), self.exam.max_new_tokens, progress
            )

    def _prompt(self, example: Example) -> tuple[int, ...]:
        """The ids before the answer, as in training.

        Where the template opens a reasoning block and removes it from past answers, no training example looks like
        that, and the prompt is that of inference.
        """
        try:
            return ask(example, ["…"], self._template, self._encode).prompt
        except DataError:
            prompt = self._template.render(example.question, add_generation_prompt=True)
            if not opened_reasoning(prompt):
                raise
            return tuple(self._encode(prompt))

    def _row_tokens(self, question: Question) -> int:
        """The tokens that the model computes for one question."""
        if self._packs:
            return len(question.prompt) + sum(map(len, question.answers))
        return len(question.answers) * (len(question.prompt) + max(map(len, question.answers)))

    def _likeliest(self, model: nn.Module, questions: Sequence[Question]) -> list[str]:
        """The likeliest label of each question."""
        assert self._head is not None
        if self._packs:
            batch = pack_answers([q.prompt for q in questions], [q.answers for q in questions])
        else:
            pairs = [(question.prompt, answer) for question in questions for answer in question.answers]
            rows = [TokenizedExample(p + a, (UNSUPERVISED,) * len(p) + a) for p, a in pairs]
            batch = pad_batch(rows, self._tokenizer.pad_token_id)
        batch = on_device_of(model, batch)
        rows, logits = supervised_logits(model, self._head, batch)
        return [self.exam.labels[number] for number in likeliest(logits, batch["labels"][rows], questions)]

    def _ending(self, example: Example) -> Ending:
        """The model's own end of text, and the markup that the template puts after an answer."""
        answer = "…"
        answered = [*example.question, Message("assistant", answer)]
        try:
            segments = self._template.segments(answered)
            markup = next(segment.text for segment in reversed(segments) if segment.supervised).rpartition(answer)[2]
        except DataError:  # as in `_prompt`
            markup = self._template.render(answered).rpartition(answer)[2]
        ids = self._encode(markup.strip())
        text = [*takewhile(lambda token: token not in self._tokenizer.added_tokens_decoder, ids)]
        if text:
            return Ending(self._tokens(ids[len(text) :]), self._tokenizer.decode(text).strip())
        return Ending(self._tokens(ids))

    def _tokens(self, marks: Sequence[int]) -> tuple[int, ...]:
        """The first of the special tokens after an answer, and the tokenizer's EOS if it has one."""
        found = {self._tokenizer.eos_token_id, *marks[:1]}
        return tuple(token for token in found if token is not None)
