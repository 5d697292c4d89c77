"""Transformers' Trainer with two changes: an objective makes the batches and the loss, so that nothing unsupervised is
computed, and logs, checkpoints and interrupts follow the run directory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.data_loader import DataLoaderShard
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from edgetune.data.tokenize import TokenizedExample
from edgetune.events import SILENT_PROGRESS, ProgressHandle
from edgetune.models.methods.adalora import after_update, orthogonality, restore_schedule, save_schedule, whole_ranks
from edgetune.training import processes
from edgetune.training.batches import Batches, training_batches
from edgetune.training.callbacks import Reporter, StopAtStepEnd
from edgetune.training.checkpoints import DurableTrainer
from edgetune.training.compilation import compile_layers
from edgetune.training.finite import FiniteGuard
from edgetune.training.objectives.objective import Batch
from edgetune.training.objectives.rest import at_rest
from edgetune.training.precise_adamw import PreciseAdamW
from edgetune.training.prepare import Prepared
from edgetune.training.saving import save_weights
from edgetune.training.sharding import average_gradients, shard_frozen_layers
from edgetune.training.telemetry import Telemetry

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from edgetune.recipe.schema import Recipe


class ObjectiveTrainer(DurableTrainer):
    """Trains `model` on the prepared data with its objective, and reports to `telemetry` and `progress`.

    `evaluation` holds the last evaluation's results beside its loss.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        settings: TrainingArguments,
        recipe: Recipe,
        prepared: Prepared,
        telemetry: Telemetry,
        progress: ProgressHandle,
    ) -> None:
        self._recipe, self._prepared = recipe, prepared
        self._objective, self._questions = prepared.objective, prepared.questions
        self._telemetry = telemetry
        self.interrupt = StopAtStepEnd(settings.world_size)
        self.evaluation: dict[str, Any] | None = None
        self._guard = FiniteGuard(model, learning_rate=settings.learning_rate, scales_gradients=settings.fp16)
        self._objective.attach(model)
        self._spread = recipe.train.parallel == "fsdp" and settings.world_size > 1
        if self._spread:
            shard_frozen_layers(model, settings.device)
        if recipe.train.compile:
            compile_layers(model)
        logging.getLogger("transformers.trainer").setLevel(logging.ERROR)
        train, evaluation = prepared.train.examples, prepared.evaluation.examples if prepared.evaluation else ()
        super().__init__(
            model=model,
            args=settings,
            processing_class=prepared.tokenizer,
            train_dataset=_as_dataset(train, filler=settings.world_size > 1),
            eval_dataset=_as_dataset(evaluation, filler=settings.world_size > 1) if evaluation else None,
            data_collator=self._collate,
            callbacks=[Reporter(telemetry, progress), self.interrupt, _AfterUpdate()],
            optimizer_cls_and_kwargs=_optimizer_of_16_bits(model, settings),
        )
        self.remove_callback(PrinterCallback)
        # The loss is divided by what the whole accumulated batch counts, so that 1×8 steps are 8×1.
        self.model_accepts_loss_kwargs = True
        # All processes have drawn the same weights by now. Their dropout must differ.
        if settings.process_index > 0:
            torch.manual_seed(settings.seed + settings.process_index)

    def _wrap_model(self, model: nn.Module, training: bool = True, **options: Any) -> nn.Module:
        if self._spread and training and model is self.model:
            return average_gradients(model, self.args.device)
        wrapped: nn.Module = super()._wrap_model(model, training, **options)
        return wrapped

    def _collate(self, rows: Sequence[dict[str, Any]]) -> Batch:
        batch: Batch = self._objective.collate([TokenizedExample(**row) for row in rows])
        if not any(row["weight"] for row in rows):
            batch["weight"], batch["tokens"], batch["supervised"] = 0.0, 0, 0
        return batch

    def get_train_dataloader(self) -> DataLoader:
        """This process's part of the training batches."""
        share = {"rank": self.args.process_index, "processes": self.args.world_size}
        return self._loader(self.train_dataset, training_batches(self._recipe, self._prepared.train, **share))

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader:
        """Batches in the order of the data, or of its lengths; this process's part of each."""
        assert self._prepared.evaluation is not None
        batches = Batches(
            [len(example.input_ids) for example in self._prepared.evaluation.examples],
            self.args.eval_batch_size,
            rank=self.args.process_index,
            processes=self.args.world_size,
            shuffle=False,
            group_by_length=self._recipe.train.group_by_length,
        )
        return self._loader(self.eval_dataset, batches)

    def _loader(self, data: Dataset, batches: Batches) -> DataLoader:
        return DataLoaderShard(
            data, batch_sampler=batches, collate_fn=self._collate, pin_memory=self.args.dataloader_pin_memory
        )

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Tensor | None:
        """The divisor of the loss of one optimizer update: the weight of its batches on all devices."""
        if not batch_samples:
            return None
        counts = [sum(batch[key] for batch in batch_samples) for key in ("weight", "tokens", "supervised")]
        if self.args.world_size > 1:
            stop = self.interrupt.requested or processes.lost_launcher()
            joint = torch.tensor([*counts, stop], device=device, dtype=torch.float64)
            *counts, stop = self.accelerator.reduce(joint).tolist()
            self.interrupt.agree(stop > 0)
        weight, tokens, supervised = counts
        self._telemetry.count_batch(int(tokens), int(supervised))
        self._steps_of_update = len(batch_samples)
        return torch.tensor(weight, device=device)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | float | None = None,
    ) -> Tensor:
        """Mean negative log-likelihood in nats over the supervised tokens of the whole accumulated batch.

        A method's own term (AdaLoRA's orthogonality) is added once per update.
        """
        total = self._objective.loss(model, inputs)
        if inputs["weight"] == 0:
            total = total * 0
        if num_items_in_batch is None:
            return total / inputs["weight"]
        # DDP averages the gradients of the processes; they must be summed.
        loss = total / num_items_in_batch * self.accelerator.num_processes
        extra = orthogonality(self.model)
        if extra is not None:
            loss = loss + extra / self._steps_of_update
        self._guard.note(loss)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float:
        norm: Tensor | float = super()._get_grad_norm(model, grad_norm)
        self._guard.check(norm, step=self.state.global_step + 1, trained=self.state.global_step > 0)
        return norm

    def _evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        with self._telemetry.paused():
            metrics: dict[str, float] = super()._evaluate(*arguments, **options)
        return metrics

    def evaluate(self, *_: Any, progress: ProgressHandle | None = None, **__: Any) -> dict[str, float]:
        """`eval_loss`, the mean over the supervised tokens of the evaluation set, and the task's metrics."""
        progress = progress or SILENT_PROGRESS
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with at_rest(self.model):
            for batch in self.get_eval_dataloader():
                total = float(self._objective.loss(self.model, self._prepare_inputs(batch)))
                sums += sums.new_tensor([total if batch["weight"] else 0.0, batch["weight"]])
                progress.advance()
        total, weight = self.accelerator.reduce(sums).tolist()
        metrics = {"eval_loss": total / weight}
        scores = self._objective.score(self.model, self._questions, progress)
        if scores is not None:
            metrics |= scores.values
            self.evaluation = scores.details
        self.log(dict(metrics))
        return metrics

    @property
    def evaluation_work(self) -> int:
        """The number of progress steps of an evaluation: one per batch, and one per question."""
        return len(self.get_eval_dataloader()) + len(self._objective.exam.questions(self._questions))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Save the state that a resumed training needs, which may differ from the result."""
        folder = Path(output_dir or self.args.output_dir)
        with whole_ranks(self.model):
            save_weights(self.model, folder)
        save_schedule(self.model, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        restore_schedule(self.model, Path(resume_from_checkpoint))


class LanguageModelTrainer(ObjectiveTrainer, SFTTrainer):
    """The same on TRL's SFTTrainer, the usual trainer of language models."""

    def __init__(self, model: PreTrainedModel, *rest: Any) -> None:
        exact = {parameter: parameter.data for parameter in model.parameters() if parameter.requires_grad}
        super().__init__(model, *rest)
        # On a quantized base, TRL casts the trained weights to bfloat16, and with them the optimizer's state.
        for parameter, data in exact.items():
            parameter.data = data.to(parameter.device)


def trainer_class(settings: TrainingArguments) -> type[ObjectiveTrainer]:
    return LanguageModelTrainer if isinstance(settings, SFTConfig) else ObjectiveTrainer


class _AfterUpdate(TrainerCallback):
    """Runs a method's own work between an update and clearing the gradients."""

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **_: Any
    ) -> None:
        after_update(model, state.global_step + 1)


def _optimizer_of_16_bits(
    model: PreTrainedModel, settings: TrainingArguments
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """AdamW with 32-bit state, where AdamW trains 16-bit weights; None elsewhere."""
    narrow = any(p.requires_grad and p.dtype == torch.bfloat16 for p in model.parameters())
    if not narrow or settings.optim != "adamw_torch_fused":
        return None
    betas = (settings.adam_beta1, settings.adam_beta2)
    return PreciseAdamW, {"lr": settings.learning_rate, "betas": betas, "eps": settings.adam_epsilon}


def _as_dataset(examples: tuple[TokenizedExample, ...], *, filler: bool) -> Dataset:
    """The examples, with `filler` one more, whose weight is 0."""
    if filler:
        shortest = min(examples, key=lambda example: len(example.input_ids))
        examples = (*examples, replace(shortest, weight=0.0))
    return Dataset.from_dict(
        {
            "input_ids": [list(example.input_ids) for example in examples],
            "labels": [list(example.labels) for example in examples],
            "weight": [example.weight for example in examples],
        }
    )
