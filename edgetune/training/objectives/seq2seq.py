"""Sequence to sequence: an encoder-decoder learns a target for each source text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from edgetune.data.example import Example
from edgetune.data.tokenize import UNSUPERVISED, Encode, TokenizedExample
from edgetune.events import ProgressHandle
from edgetune.training.objectives.adapted import base_model, has_virtual_tokens, on_device_of
from edgetune.training.objectives.generation import Ending, GeneratedText, generate
from edgetune.training.objectives.objective import Batch, Exam, Objective, token_weights
from edgetune.training.objectives.padding import attention_mask, pad_rows
from edgetune.training.objectives.questions import Question, in_batches, likeliest
from edgetune.training.objectives.supervised import only_rows, summed_nll, supervised_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokenize = Callable[[Sequence[Example]], Sequence[TokenizedExample]]


class Seq2SeqBatch(Batch):
    """The batch of an encoder-decoder; `labels` (b, target tokens) are -100 where there is padding."""

    input_ids: Tensor  # (b, source tokens)
    attention_mask: Tensor  # (b, source tokens), 0 where there is padding
    weights: Tensor | None  # (target tokens of all examples,); None where each counts once


class Seq2Seq(Objective):
    """The likelihood of the target given the source, as in T5, https://arxiv.org/abs/1910.10683.

    `tokenize` turns examples into token ids as training does; `encode` turns a label into the decoder's target.
    """

    def __init__(self, exam: Exam, tokenizer: PreTrainedTokenizerBase, tokenize: Tokenize, encode: Encode) -> None:
        super().__init__(exam)
        self._tokenizer, self._tokenize, self._encode = tokenizer, tokenize, encode
        self._head: nn.Module | None = None

    def attach(self, model: nn.Module) -> None:
        self._head = base_model(model).get_output_embeddings()

    def collate(self, examples: Sequence[TokenizedExample]) -> Seq2SeqBatch:
        """Sources and targets padded on the right."""
        sources = [example.input_ids for example in examples]
        targets = [len(example.labels) for example in examples]
        return Seq2SeqBatch(
            input_ids=pad_rows(sources, self._tokenizer.pad_token_id),
            attention_mask=attention_mask(sources),
            labels=pad_rows([example.labels for example in examples], UNSUPERVISED),
            weights=token_weights(examples, targets),
            tokens=sum(map(len, sources)) + sum(targets),
            supervised=sum(targets),
            weight=sum(example.weight * count for example, count in zip(examples, targets, strict=True)),
        )

    def loss(self, model: nn.Module, batch: Seq2SeqBatch) -> Tensor:
        sources = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        logits, targets = self._target_logits(model, sources, batch["labels"])
        return summed_nll(logits, targets, batch["weights"])

    def choose(self, model: nn.Module, examples: Sequence[Example], progress: ProgressHandle) -> list[str]:
        """The label with the highest log-likelihood as the whole answer; the encoder reads each text once."""
        answers = tuple(tuple(self._encode(label)) for label in self.exam.labels)
        questions = [Question(example.input_ids, answers) for example in self._tokenize(examples)]
        return in_batches(
            questions,
            lambda question: len(question.prompt) + sum(map(len, answers)),
            lambda batch: self._likeliest(model, batch),
            progress,
        )

    def answer(self, model: nn.Module, examples: Sequence[Example], progress: ProgressHandle) -> list[GeneratedText]:
        sources = [example.input_ids for example in self._tokenize(examples)]
        ending = Ending((self._tokenizer.eos_token_id,))
        return generate(model, sources, self._tokenizer, ending, self.exam.max_new_tokens, progress, encodes=True)

    def _likeliest(self, model: nn.Module, questions: Sequence[Question]) -> list[str]:
        """The likeliest label of each question."""
        count = len(questions[0].answers)
        prompts = [question.prompt for question in questions]
        sources = on_device_of(
            model,
            {"input_ids": pad_rows(prompts, self._tokenizer.pad_token_id), "attention_mask": attention_mask(prompts)},
        )
        answers = [answer for question in questions for answer in question.answers]
        labels = pad_rows(answers, UNSUPERVISED).to(sources["input_ids"].device)
        if has_virtual_tokens(model):  # PEFT inserts them, and needs the source for it
            sources = {name: value.repeat_interleave(count, dim=0) for name, value in sources.items()}
        else:
            sources = _encoded_once(base_model(model), sources, count)
        logits, targets = self._target_logits(model, sources, labels)
        return [self.exam.labels[number] for number in likeliest(logits, targets, questions)]

    def _target_logits(self, model: nn.Module, sources: dict[str, Any], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits in float32 (n, vocabulary) for the n target tokens in labels (b, t), and those tokens, row by row."""
        assert self._head is not None
        rows = supervised_rows(labels)
        decoder_input_ids = base_model(model).prepare_decoder_input_ids_from_labels(labels)
        with only_rows(self._head, rows):
            logits = model(**sources, decoder_input_ids=decoder_input_ids, use_cache=False).logits
        return logits.float(), labels[rows]


def _encoded_once(base: nn.Module, sources: dict[str, Tensor], count: int) -> dict[str, Any]:
    """The encoder's output for sources (b, s), repeated `count` times."""
    from transformers.modeling_outputs import BaseModelOutput

    hidden = base.get_encoder()(**sources).last_hidden_state
    return {
        "encoder_outputs": BaseModelOutput(last_hidden_state=hidden.repeat_interleave(count, dim=0)),
        "attention_mask": sources["attention_mask"].repeat_interleave(count, dim=0),
    }
