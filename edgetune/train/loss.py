"""The training loss, computed only where a token is supervised.

On a small model the vocabulary projection costs more than all layers together, and in completion-only training most of
its rows are thrown away. Here the model's own forward runs, and only the rows that predict a supervised token reach the
output layer; they reach it as a 2-D matrix, because matmul copies the whole output matrix per example for a 3-D view.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgetune.data.tokenize import UNSUPERVISED
from edgetune.errors import DataError


def supervised_nll(model: nn.Module, head: nn.Module, input_ids: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Sum of the negative log-likelihoods (nats) of the supervised tokens, and their number.

    input_ids (b, t), padded on the right; labels (b, t), -100 where unsupervised; `head` is the model's output layer.
    No attention mask is needed: under causal attention nothing sees the padding behind it. Raises DataError when every
    label is -100.
    """
    targets = labels[:, 1:]
    supervised = targets != UNSUPERVISED
    count = int(supervised.sum())
    if count == 0:
        raise DataError("a batch holds no supervised token", remedy="raise data.max_length")
    rows = nn.functional.pad(supervised, (0, 1))
    with _only_rows(head, rows):
        logits = model(input_ids=input_ids, use_cache=False).logits
    return nn.functional.cross_entropy(logits.float(), targets[supervised], reduction="sum"), count


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
