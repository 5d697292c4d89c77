"""TRL's SFTTrainer with two things replaced: batches and loss do no work that counts for nothing, and what is logged,
saved or interrupted goes into a run directory."""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from edgetune.console import ProgressHandle
from edgetune.data.tokenize import TokenizedExample
from edgetune.errors import NumericalError
from edgetune.recipe.schema import Recipe
from edgetune.train.batches import Batch, can_pack, pack_batch, pad_batch, use_packed_attention
from edgetune.train.frozen_linear import quicken_frozen_linears
from edgetune.train.loss import supervised_nll
from edgetune.train.run_directory import COMPLETE, RunDirectory
from edgetune.train.telemetry import Telemetry

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}


def trainer_settings(recipe: Recipe, run: RunDirectory, *, evaluates: bool, dtype: torch.dtype) -> SFTConfig:
    """A recipe's `train` section in TRL's words."""
    train = recipe.train
    on_gpu = torch.cuda.is_available()
    evaluates_midway = evaluates and train.eval_every is not None
    return SFTConfig(
        output_dir=str(run.checkpoints),
        num_train_epochs=train.epochs,
        max_steps=train.max_steps or -1,
        per_device_train_batch_size=train.batch_size,
        per_device_eval_batch_size=train.batch_size,
        gradient_accumulation_steps=train.accumulate,
        learning_rate=train.learning_rate,
        optim=_OPTIMIZERS[train.optimizer],
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        gradient_checkpointing=train.gradient_checkpointing,
        eval_strategy="steps" if evaluates_midway else "no",
        eval_steps=train.eval_every if evaluates_midway else None,
        save_strategy="steps" if train.save_every else "epoch",
        save_steps=train.save_every or 500,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=train.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        seed=train.seed,
        data_seed=train.seed,
        use_cpu=not on_gpu,
        # The weights are in the recipe's dtype already; float16 alone needs its gradients scaled as well.
        bf16=False,
        fp16=on_gpu and dtype == torch.float16,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
    )


def total_steps(recipe: Recipe, *, examples: int) -> int:
    """Optimizer updates of a whole run, as Transformers counts them (the last, smaller batch of an epoch included)."""
    train = recipe.train
    if train.max_steps is not None:
        return train.max_steps
    batches = math.ceil(examples / train.batch_size)
    updates_per_epoch = max(math.ceil(batches / train.accumulate), 1)
    return math.ceil(train.epochs * updates_per_epoch)


class AdapterTrainer(SFTTrainer):
    """Trains `model`'s adapter on tokenized examples and reports to `telemetry` and `progress`."""

    def __init__(
        self,
        model: PeftModel,
        settings: SFTConfig,
        tokenizer: PreTrainedTokenizerBase,
        train: tuple[TokenizedExample, ...],
        evaluation: tuple[TokenizedExample, ...],
        telemetry: Telemetry,
        progress: ProgressHandle,
    ) -> None:
        base = model.get_base_model()
        self._head: nn.Module = base.get_output_embeddings()
        quicken_frozen_linears(model)
        self._telemetry = telemetry
        self.interrupt = StopAtStepEnd()
        logging.getLogger("transformers.trainer").setLevel(logging.ERROR)
        packs = can_pack(base.config)
        if packs:
            use_packed_attention(base)
        super().__init__(
            model=model,
            args=settings,
            processing_class=tokenizer,
            train_dataset=_as_dataset(train),
            eval_dataset=_as_dataset(evaluation) if evaluation else None,
            data_collator=_Collator(tokenizer.pad_token_id, packs=packs, share_prompt=not _has_dropout(model)),
            callbacks=[Reporter(telemetry, progress), self.interrupt],
        )
        self.remove_callback(PrinterCallback)
        # The loss is divided by the tokens of the whole accumulated batch, so that 1×8 steps are 8×1.
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Mean negative log-likelihood in nats over the supervised tokens of the whole accumulated batch."""
        total, count = supervised_nll(model, self._head, inputs)
        if model.training:
            self._telemetry.count_batch(inputs["tokens"], count)
        return total / (count if num_items_in_batch is None else num_items_in_batch)

    def evaluate(self, *_: Any, progress: ProgressHandle | None = None, **__: Any) -> dict[str, float]:
        """`eval_loss`: mean over the supervised tokens of the evaluation set, not over its batches."""
        self.model.eval()
        total, tokens = 0.0, 0
        with torch.no_grad():
            for batch in self.get_eval_dataloader():
                loss, count = supervised_nll(self.model, self._head, self._prepare_inputs(batch))
                total, tokens = total + float(loss), tokens + count
                if progress is not None:
                    progress.advance()
        metrics = {"eval_loss": total / tokens}
        self.log(dict(metrics))
        self.model.train()
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        # With its defaults PEFT asks the hub here whether the base's vocabulary was changed.
        self.model.save_pretrained(output_dir, save_embedding_layers=False)

    def _save_checkpoint(self, model: nn.Module, trial: None) -> None:
        super(SFTTrainer, self)._save_checkpoint(model, trial)
        (Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / COMPLETE).touch()


class Reporter(TrainerCallback):
    """Passes what the trainer logs on to the telemetry, and what it has done to the progress bar."""

    def __init__(self, telemetry: Telemetry, progress: ProgressHandle) -> None:
        self._telemetry, self._progress = telemetry, progress
        self._loss, self._logged_step = "", 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs is None or "train_runtime" in logs:
            return
        if not math.isfinite(logs.get("loss", 0.0)):
            raise NumericalError(
                f"the loss is {logs['loss']} at step {state.global_step}; training stopped, earlier checkpoints stay",
                remedy=f"lower train.learning_rate (now {logs.get('learning_rate', args.learning_rate):g}) or add "
                "train.warmup_steps",
            )
        self._telemetry.log(step=state.global_step, epoch=state.epoch or 0.0, values=logs)
        self._logged_step = state.global_step
        if "loss" in logs:
            self._loss = f"loss {logs['loss']:.3f}"

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A resumed run reads its counts from the last row, so every checkpoint has one."""
        if self._logged_step < state.global_step:
            self._telemetry.log(step=state.global_step, epoch=state.epoch or 0.0, values={})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        tokens_per_second = self._telemetry.tokens_per_second
        self._progress.advance(1, f"{self._loss}, {tokens_per_second:.0f} tokens/s")


class StopAtStepEnd(TrainerCallback):
    """While it is open, Ctrl-C finishes the step at hand, saves a checkpoint and stops; a second stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def _request(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __enter__(self) -> StopAtStepEnd:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.requested:
            control.should_save = True
            control.should_training_stop = True


def _as_dataset(examples: tuple[TokenizedExample, ...]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [list(example.input_ids) for example in examples],
            "labels": [list(example.labels) for example in examples],
        }
    )


@dataclass(frozen=True)
class _Collator:
    """Rows of a data set -> a Batch, packed where the model allows it."""

    pad_token_id: int
    packs: bool
    share_prompt: bool

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Batch:
        examples = [TokenizedExample(**row) for row in rows]
        if self.packs:
            return pack_batch(examples, share_prompt=self.share_prompt)
        return pad_batch(examples, self.pad_token_id)


def _has_dropout(model: nn.Module) -> bool:
    """With dropout, examples that share hidden states would share their noise too."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
