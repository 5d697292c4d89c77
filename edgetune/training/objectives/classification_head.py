"""Classification with a head: one score per label, on encoders, decoders and encoder-decoders."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from edgetune.data.example import Example
from edgetune.data.tokenize import TokenizedExample
from edgetune.events import ProgressHandle
from edgetune.models.families import kind_of
from edgetune.models.load import head_modules
from edgetune.training.objectives.adapted import base_model, has_virtual_embeddings, on_device_of
from edgetune.training.objectives.objective import Batch, Exam, Objective, token_weights
from edgetune.training.objectives.padding import attention_mask, pad_rows
from edgetune.training.objectives.questions import in_batches
from edgetune.training.objectives.seq2seq import Tokenize
from edgetune.training.objectives.supervised import summed_nll

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class HeadBatch(Batch):
    """The batch of a classification head; `labels` (b,) are the numbers of the right classes."""

    input_ids: Tensor  # (b, t)
    attention_mask: Tensor  # (b, t), 0 where there is padding
    weights: Tensor | None  # (b,); None where each example counts once


class ClassificationHead(Objective):
    """Cross-entropy over the labels. `tokenize` turns examples into token ids as training does."""

    def __init__(self, exam: Exam, tokenizer: PreTrainedTokenizerBase, tokenize: Tokenize) -> None:
        super().__init__(exam)
        self._tokenizer, self._tokenize = tokenizer, tokenize
        self._score: nn.Module | None = None

    def attach(self, model: nn.Module) -> None:
        """Let the head compute in its own type, and set the model's padding id.

        A decoder's scores are those of the last token that is not padding.
        """
        base = base_model(model)
        for name in head_modules(base):
            _compute_in_own_type(getattr(base, name))
        base.config.get_text_config().pad_token_id = self._tokenizer.pad_token_id
        # Transformers finds that token by its id, and with virtual embeddings it sees no ids.
        if kind_of(base.config.model_type) == "decoder" and has_virtual_embeddings(model):
            self._score = base.score

    def collate(self, examples: Sequence[TokenizedExample]) -> HeadBatch:
        """Texts padded on the right."""
        texts = [example.input_ids for example in examples]
        return HeadBatch(
            input_ids=pad_rows(texts, self._tokenizer.pad_token_id),
            attention_mask=attention_mask(texts),
            labels=torch.tensor([example.labels[0] for example in examples]),
            weights=token_weights(examples, [1] * len(examples)),
            tokens=sum(map(len, texts)),
            supervised=len(examples),
            weight=sum(example.weight for example in examples),
        )

    def loss(self, model: nn.Module, batch: HeadBatch) -> Tensor:
        return summed_nll(self._logits(model, batch), batch["labels"], batch["weights"])

    def choose(self, model: nn.Module, examples: Sequence[Example], progress: ProgressHandle) -> list[str]:
        def choose(texts: list[TokenizedExample]) -> list[str]:
            batch = on_device_of(model, self.collate(texts))
            return [self.exam.labels[number] for number in self._logits(model, batch).argmax(dim=1).tolist()]

        return in_batches(self._tokenize(examples), lambda text: len(text.input_ids), choose, progress)

    def _logits(self, model: nn.Module, batch: HeadBatch) -> Tensor:
        """Scores in float32 (b, labels)."""
        mask = batch["attention_mask"]
        with nullcontext() if self._score is None else _last_rows(self._score, mask):
            logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=mask).logits
        return logits.float()


def _compute_in_own_type(head: nn.Module) -> None:
    """Cast the inputs of the layers of `head` to the type of their weights, which can differ from that of the base.

    A head has 32 bits on a 16-bit base, or 16 bits on a quantized base whose hidden states have 32.
    """

    def cast(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        dtype = next(layer.parameters(recurse=False)).dtype
        return tuple(each.to(dtype) for each in inputs)

    for layer in head.modules():
        if next(layer.parameters(recurse=False), None) is not None:
            layer.register_forward_pre_hook(cast)


def _last_rows(score: nn.Module, mask: Tensor) -> RemovableHandle:
    """Within `with`, `score` gets only each text's last token (b, 1, d) of hidden states (b, virtual + t, d).

    mask (b, t) is 1 where there is text; padding follows it.
    """

    def pick(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        hidden = inputs[0]
        last = hidden.shape[1] - mask.shape[1] + mask.sum(dim=1) - 1
        return (hidden[torch.arange(len(hidden), device=hidden.device), last].unsqueeze(1),)

    return score.register_forward_pre_hook(pick)
