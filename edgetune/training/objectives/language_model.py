"""A decoder that learns to write the supervised part of each conversation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from torch import Tensor, nn

from edgetune.data.example import Example, Message
from edgetune.data.reasoning import opened_reasoning
from edgetune.data.template import ChatTemplate
from edgetune.data.tokenize import UNSUPERVISED, TokenizedExample
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
        self._head: nn.Module | None = None
        self._packs = self._shares_prompt = False

    def attach(self, model: nn.Module) -> None:
        """Find the output layer, and let the model read packed rows if it can."""
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
        """Summed negative log-likelihood of the supervised tokens, in nats."""
        assert self._head is not None
        return supervised_nll(model, self._head, batch)[0]

    def choose(self, model: nn.Module, examples: Sequence[Example], progress: ProgressHandle) -> list[str]:
        """By the log-likelihood of each label with its end-of-turn markup, as `edgetune classify` does."""
        labels = self.exam.labels
        questions = [ask(example, labels, self._template, self._encode) for example in examples]

        def choose(places: Sequence[int]) -> list[str]:
            return [labels[number] for number in self._likeliest(model, [questions[place] for place in places])]

        return in_batches([self._row_tokens(question) for question in questions], choose, progress)

    def answer(self, model: nn.Module, examples: Sequence[Example], progress: ProgressHandle) -> list[GeneratedText]:
        """What the model writes after each prompt, up to its end-of-turn markup."""
        if not examples:
            return []
        prompts = [self._prompt(example) for example in examples]
        with plain_attention(base_model(model)):
            return generate(
                model, prompts, self._tokenizer, self._ending(examples[0]), self.exam.max_new_tokens, progress
            )

    def _prompt(self, example: Example) -> tuple[int, ...]:
        """The ids of training before the answer.

        Where the template begins the model's reasoning, and drops it from what was answered, no training could begin
        so, and the prompt is the one that inference sends.
        """
        try:
            return ask(example, ["…"], self._template, self._encode).prompt
        except DataError:
            prompt = self._template.render(example.question, add_generation_prompt=True)
            if not opened_reasoning(prompt):
                raise
            return tuple(self._encode(prompt))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _row_tokens(self, question: Question) -> int:
        """Tokens that the model computes for one question."""
        if self._packs:
            return len(question.prompt) + sum(map(len, question.answers))
        return len(question.answers) * (len(question.prompt) + max(map(len, question.answers)))

    def _likeliest(self, model: nn.Module, questions: Sequence[Question]) -> list[int]:
        """Of each question, the number of the likeliest answer."""
        assert self._head is not None
        if self._packs:
            batch = pack_answers([q.prompt for q in questions], [q.answers for q in questions])
        else:
            pairs = [(question.prompt, answer) for question in questions for answer in question.answers]
            rows = [TokenizedExample(p + a, (UNSUPERVISED,) * len(p) + a) for p, a in pairs]
            batch = pad_batch(rows, self._tokenizer.pad_token_id)
        batch = on_device_of(model, batch)
        rows, logits = supervised_logits(model, self._head, batch)
        return likeliest(logits, batch["labels"][rows], questions)

    def _ending(self, example: Example) -> Ending:
        """The model's own end of text, and the markup that the template puts behind an answer."""
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
        """The first of the special tokens behind an answer, and the tokenizer's EOS, if it has one."""
        found = {self._tokenizer.eos_token_id, *marks[:1]}
        return tuple(token for token in found if token is not None)
