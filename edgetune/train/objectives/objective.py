"""What training asks of a task: batches, a loss, and how good the answers are. One subclass per kind of model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypedDict

from torch import Tensor, nn

from edgetune.console import ProgressHandle
from edgetune.data.example import Example
from edgetune.data.tokenize import TokenizedExample


class Batch(TypedDict):
    """What every objective's batch holds beside its own tensors."""

    labels: Tensor
    weight: float
    """What the summed loss is divided by: supervised tokens (or texts), each counted with its example's weight."""
    tokens: int
    """Tokens of all examples, padding not counted and shared ones counted each time."""
    supervised: int
    """Tokens (or texts, with a classification head) that the loss is computed for."""


class Objective(ABC):
    """How one kind of model learns one kind of task."""

    @abstractmethod
    def attach(self, model: nn.Module) -> None:
        """Make ready a model that is about to be trained, adapter included. Called once, before the first batch."""

    @abstractmethod
    def collate(self, examples: Sequence[TokenizedExample]) -> Any:
        """One batch, a dictionary with the keys of Batch."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Sum over the batch of weight × negative log-likelihood, in nats."""

    def score(self, model: nn.Module, examples: Sequence[Example], progress: ProgressHandle) -> dict[str, Any]:
        """The task's own metrics on evaluation examples, beside the loss; names as they stand in metrics.jsonl."""
        return {}
