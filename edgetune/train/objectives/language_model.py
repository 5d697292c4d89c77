"""A decoder that learns to write the supervised part of each conversation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgetune.data.tokenize import TokenizedExample
from edgetune.train.objectives.objective import Objective
from edgetune.train.objectives.packing import LanguageBatch, can_pack, pack_batch, pad_batch, use_packed_attention
from edgetune.train.objectives.supervised import supervised_nll


class LanguageModel(Objective):
    """Next-token prediction by a causal language model, packed where its attention allows it."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id
        self._head: nn.Module | None = None
        self._packs = self._shares_prompt = False

    def attach(self, model: nn.Module) -> None:
        """Find the output layer, and let the model read packed rows if it can."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._head = base.get_output_embeddings()
        self._packs = can_pack(base.config)
        self._shares_prompt = not _has_dropout(model)
        if self._packs:
            use_packed_attention(base)

    def collate(self, examples: Sequence[TokenizedExample]) -> LanguageBatch:
        """All examples in one row, or one row each."""
        if self._packs:
            return pack_batch(examples, share_prompt=self._shares_prompt)
        return pad_batch(examples, self._pad_token_id)

    def loss(self, model: nn.Module, batch: LanguageBatch) -> Tensor:
        """Summed negative log-likelihood of the supervised tokens, in nats."""
        assert self._head is not None
        return supervised_nll(model, self._head, batch)[0]


def _has_dropout(model: nn.Module) -> bool:
    """With dropout, examples that share hidden states would share their noise too."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
