"""The training loss, computed only for supervised tokens.

On a small model the vocabulary projection costs as much as many layers, and in completion-only training most of its
rows are not needed. The model's own forward runs, but only the rows that predict a supervised token reach the output
layer, as a 2-D matrix: for a 3-D view, matmul copies the whole output matrix for each example.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from edgetune.data.tokenize import UNSUPERVISED
from edgetune.errors import DataError
from edgetune.training.objectives.adapted import has_virtual_tokens
from edgetune.training.objectives.packing import LanguageBatch


def supervised_nll(model: nn.Module, head: nn.Module, batch: LanguageBatch) -> tuple[Tensor, int]:
    """Sum of weight × negative log-likelihood (nats) over the supervised tokens of `batch`, and their number.

    `head` is the model's output layer. Raises DataError when the batch holds no supervised token.
    """
    rows, logits = supervised_logits(model, head, batch)
    return summed_nll(logits, batch["labels"][rows], batch["weights"]), len(logits)


def supervised_logits(model: nn.Module, head: nn.Module, batch: LanguageBatch) -> tuple[Tensor, Tensor]:
    """Where `batch` is supervised (b, t), and the logits there in float32 (supervised, vocabulary), row by row.

    Raises DataError when the batch holds no supervised token.
    """
    rows = supervised_rows(batch["labels"])
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"], "use_cache": False}
    if not has_virtual_tokens(model):  # with them PEFT counts positions itself
        inputs["position_ids"] = batch["position_ids"]
    if batch["layout"] is not None:
        inputs["layout"] = batch["layout"]
    with only_rows(head, rows):
        return rows, model(**inputs).logits.float()


def supervised_rows(labels: Tensor) -> Tensor:
    """True where labels (b, t) are supervised. Raises DataError when none is."""
    rows = labels != UNSUPERVISED
    if not rows.any():
        raise DataError("a batch holds no supervised token", remedy="raise data.max_length")
    return rows


def summed_nll(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Sum of weight × negative log-likelihood in nats of targets (n,) under logits (n, classes); weights (n,) or 1."""
    if weights is None:
        return nn.functional.cross_entropy(logits, targets, reduction="sum")
    return (nn.functional.cross_entropy(logits, targets, reduction="none") * weights).sum()


def only_rows(head: nn.Module, rows: Tensor) -> RemovableHandle:
    """Within `with`, `head` gets only the hidden states (n, d) where `rows` (b, t) is true, not all (b, t, d).

    Hidden states of virtual tokens, which come before those of the t tokens, are left out.
    """

    def gather(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        hidden = inputs[0]
        return (hidden[:, hidden.shape[1] - rows.shape[1] :][rows],)

    return head.register_forward_pre_hook(gather)
