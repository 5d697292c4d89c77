"""Transformers' Trainer with two things replaced: an objective makes batches and loss, so that no work is done that
counts for nothing, and what is logged, saved or interrupted goes into a run directory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from edgetune.console import ProgressHandle
from edgetune.data.tokenize import TokenizedExample
from edgetune.train.callbacks import Reporter, StopAtStepEnd
from edgetune.train.frozen_linear import quicken_frozen_linears
from edgetune.train.objectives.objective import Batch, Objective
from edgetune.train.run_directory import COMPLETE
from edgetune.train.telemetry import Telemetry

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ObjectiveTrainer(Trainer):
    """Trains `model` by an objective on tokenized examples and reports to `telemetry` and `progress`."""

    def __init__(
        self,
        model: PreTrainedModel,
        settings: TrainingArguments,
        tokenizer: PreTrainedTokenizerBase,
        objective: Objective,
        train: tuple[TokenizedExample, ...],
        evaluation: tuple[TokenizedExample, ...],
        telemetry: Telemetry,
        progress: ProgressHandle,
    ) -> None:
        self._objective = objective
        self._telemetry = telemetry
        self.interrupt = StopAtStepEnd()
        quicken_frozen_linears(model)
        objective.attach(model)
        logging.getLogger("transformers.trainer").setLevel(logging.ERROR)
        super().__init__(
            model=model,
            args=settings,
            processing_class=tokenizer,
            train_dataset=_as_dataset(train),
            eval_dataset=_as_dataset(evaluation) if evaluation else None,
            data_collator=self._collate,
            callbacks=[Reporter(telemetry, progress), self.interrupt],
        )
        self.remove_callback(PrinterCallback)
        # The loss is divided by what the whole accumulated batch counts, so that 1×8 steps are 8×1.
        self.model_accepts_loss_kwargs = True

    def _collate(self, rows: Sequence[dict[str, Any]]) -> Batch:
        batch: Batch = self._objective.collate([TokenizedExample(**row) for row in rows])
        return batch

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Tensor | None:
        """What the loss of one optimizer update is divided by: the weight of its batches, on all devices together."""
        if not batch_samples:
            return None
        weight = torch.tensor(sum(batch["weight"] for batch in batch_samples), device=device)
        return self.accelerator.gather(weight).sum() if self.args.world_size > 1 else weight

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | float | None = None,
    ) -> Tensor:
        """Mean negative log-likelihood in nats over what is supervised in the whole accumulated batch."""
        total = self._objective.loss(model, inputs)
        if model.training:
            self._telemetry.count_batch(inputs["tokens"], inputs["supervised"])
        if num_items_in_batch is None:
            return total / inputs["weight"]
        # DDP averages gradients over the processes, and the sum is wanted.
        return total / num_items_in_batch * self.accelerator.num_processes

    def evaluate(self, *_: Any, progress: ProgressHandle | None = None, **__: Any) -> dict[str, float]:
        """`eval_loss`: mean over what is supervised in the evaluation set, not over its batches."""
        self.model.eval()
        total, weight = 0.0, 0.0
        with torch.no_grad():
            for batch in self.get_eval_dataloader():
                total += float(self._objective.loss(self.model, self._prepare_inputs(batch)))
                weight += batch["weight"]
                if progress is not None:
                    progress.advance()
        metrics = {"eval_loss": total / weight}
        self.log(dict(metrics))
        self.model.train()
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        # With its defaults PEFT asks the hub here whether the base's vocabulary was changed.
        self.model.save_pretrained(output_dir, save_embedding_layers=False)

    def _save_checkpoint(self, model: nn.Module, trial: None) -> None:
        Trainer._save_checkpoint(self, model, trial)
        (Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / COMPLETE).touch()


class LanguageModelTrainer(ObjectiveTrainer, SFTTrainer):
    """The same on TRL's SFTTrainer, whose settings and habits language models are trained with."""


def trainer_class(settings: TrainingArguments) -> type[ObjectiveTrainer]:
    """The trainer that these settings are for."""
    return LanguageModelTrainer if isinstance(settings, SFTConfig) else ObjectiveTrainer


def _as_dataset(examples: tuple[TokenizedExample, ...]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [list(example.input_ids) for example in examples],
            "labels": [list(example.labels) for example in examples],
            "weight": [example.weight for example in examples],
        }
    )
