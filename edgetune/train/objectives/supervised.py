"""The training loss, computed only where a token is supervised.

On a small model the vocabulary projection costs as much as many layers, and in completion-only training most of its
rows are thrown away. Here the model's own forward runs, and only the rows that predict a supervised token reach the
output layer; they reach it as a 2-D matrix, because matmul copies the whole output matrix per example for a 3-D view.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from edgetune.data.tokenize import UNSUPERVISED
from edgetune.errors import DataError
from edgetune.train.objectives.packing import LanguageBatch


def supervised_nll(model: nn.Module, head: nn.Module, batch: LanguageBatch) -> tuple[Tensor, int]:
    """Sum of the negative log-likelihoods (nats) of the supervised tokens of `batch`, and their number.

    `head` is the model's output layer. Raises DataError when the batch holds no supervised token.
    """
    rows = batch["labels"] != UNSUPERVISED
    count = int(rows.sum())
    if count == 0:
        raise DataError("a batch holds no supervised token", remedy="raise data.max_length")
    layout: dict[str, Any] = {} if batch["layout"] is None else {"layout": batch["layout"]}
    with _only_rows(head, rows):
        logits = model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False, **layout
        ).logits
    return nn.functional.cross_entropy(logits.float(), batch["labels"][rows], reduction="sum"), count


@contextmanager
def _only_rows(head: nn.Module, rows: Tensor) -> Iterator[None]:
    """While this is open, `head` sees hidden states (n, d) where `rows` (b, t) is true instead of all (b, t, d)."""

    def gather(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0][rows],)

    handle = head.register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()
