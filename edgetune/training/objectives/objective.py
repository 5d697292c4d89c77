"""The interface of objectives: batches, a loss, and metrics of the answers. One subclass per kind of model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from edgetune.data.example import Example
from edgetune.data.tokenize import TokenizedExample
from edgetune.events import ProgressHandle
from edgetune.metrics.samples import Sample, Samples
from edgetune.training.objectives.generation import GeneratedText
from edgetune.training.objectives.rest import at_rest
from edgetune.training.objectives.scores import Scores, score


class Batch(TypedDict):
    """The entries that every objective's batch has beside its own tensors."""

    labels: Tensor
    weight: float
    """The divisor of the summed loss: supervised tokens (or texts), each counted with its example's weight."""
    tokens: int
    """Tokens of all examples without padding; shared ones count for each example."""
    supervised: int
    """Tokens (or texts, with a classification head) that the loss is computed for."""


def token_weights(examples: Sequence[TokenizedExample], supervised: Sequence[int]) -> Tensor | None:
    """Each example's weight, repeated for its supervised tokens; None where all weights are 1."""
    weights = [example.weight for example in examples]
    if all(weight == 1 for weight in weights):
        return None
    return torch.tensor(weights).repeat_interleave(torch.tensor(supervised))


@dataclass(frozen=True)
class Exam:
    """The questions of an evaluation beside the loss: to choose a label, or to write a summary."""

    task: str
    """chat (nothing is asked), classify or summarize."""
    labels: tuple[str, ...] = ()
    max_new_tokens: int = 128
    """At most so many tokens of a summary are generated."""
    limit: int | None = None
    """Summaries are generated for at most so many examples."""
    metrics: tuple[str, ...] = ()
    """Metrics of the answers beside the task's own, by their names in the registry."""

    def questions(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The examples that are asked about."""
        if self.task == "chat":
            return ()
        return examples[: self.limit] if self.task == "summarize" else examples


class Objective(ABC):
    """How one kind of model learns one kind of task."""

    def __init__(self, exam: Exam) -> None:
        self.exam = exam

    @abstractmethod
    def attach(self, model: nn.Module) -> None:
        """Prepare a model for training, adapter included. Called once, before the first batch."""

    @abstractmethod
    def collate(self, examples: Sequence[TokenizedExample]) -> Any:
        """One batch, a dictionary with the keys of Batch."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Sum over the batch of weight × negative log-likelihood, in nats."""

    @abstractmethod
    def choose(self, model: nn.Module, examples: Sequence[Example], progress: ProgressHandle) -> list[str]:
        """The likeliest label for each example. The model is in evaluation mode."""

    def write(self, model: nn.Module, examples: Sequence[Example], progress: ProgressHandle) -> list[str]:
        return [written.text for written in self.answer(model, examples, progress)]

    def answer(self, model: nn.Module, examples: Sequence[Example], progress: ProgressHandle) -> list[GeneratedText]:
        """The generated answer to each example, decoded greedily, by a model in evaluation mode that can write."""
        raise NotImplementedError

    def score(self, model: nn.Module, examples: Sequence[Example], progress: ProgressHandle) -> Scores | None:
        """The task's metrics on the exam's questions among `examples`, which `progress` counts; None without questions.

        The model's state is restored afterwards.
        """
        questions = self.exam.questions(examples)
        if not questions:
            return None
        with at_rest(model):
            if self.exam.task == "classify":
                answers = self.choose(model, questions, progress)
            else:
                answers = self.write(model, questions, progress)
        pairs = zip(questions, answers, strict=True)
        samples = [Sample(one.where, text, True, one.references, one.label, predicted=text) for one, text in pairs]
        return score(self.exam.task, Samples(tuple(samples), self.exam.labels), self.exam.metrics)
