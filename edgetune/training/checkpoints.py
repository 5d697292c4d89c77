"""Checkpoints that are complete or absent, and from which a run resumes exactly."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from peft import load_peft_weights, set_peft_model_state_dict
from torch import nn
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_utils import rotate_checkpoints

from edgetune.outputs import staged_folder
from edgetune.training.run_directory import RunDirectory


class DurableTrainer(Trainer):
    """Transformers' Trainer with checkpoints in a run directory, which only the first process writes."""

    _saved_step = -1
    _staging: Path | None = None

    def _save_checkpoint(self, model: nn.Module, trial: None) -> None:
        """A checkpoint under a temporary name, flushed and renamed; a step that ends an epoch is saved only once."""
        step = self.state.global_step
        if step == self._saved_step:
            return
        if self.args.should_save:
            run = RunDirectory(Path(self.args.output_dir).parent)
            target = run.checkpoints / f"checkpoint-{step}"
            with staged_folder(target) as staged:
                self._save_into(staged, model)
                run.seal(staged)
            rotate_checkpoints(str(run.checkpoints), self.args.save_total_limit)
        else:
            Trainer._save_checkpoint(self, model, None)
        self.accelerator.wait_for_everyone()
        self._saved_step = step

    def _save_into(self, folder: Path, model: nn.Module) -> None:
        self._staging = folder
        try:
            Trainer._save_checkpoint(self, model, None)
        finally:
            self._staging = None
        (made,) = folder.iterdir()
        for file in made.iterdir():
            file.rename(folder / file.name)
        made.rmdir()

    def _get_output_dir(self, trial: None) -> str:
        return str(self._staging or self.args.output_dir)

    def _save_rng_state(self, output_dir: str) -> None:
        """The states of all processes. The first writes them, because the others may be on other machines."""
        if self.args.world_size == 1:
            super()._save_rng_state(output_dir)
            return
        with tempfile.TemporaryDirectory() as folder:
            super()._save_rng_state(folder)
            (own,) = Path(folder).iterdir()
            states = gather_object([own.read_bytes()])
        if self.args.should_save:
            for number, state in enumerate(states):
                (Path(output_dir) / f"rng_state_{number}.pth").write_bytes(state)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the saved weights as they are: PEFT's own loading turns 16-bit adapters into 32-bit ones."""
        model = model or self.model
        if not hasattr(model, "peft_config") or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        weights = load_peft_weights(resume_from_checkpoint, device="cpu")
        set_peft_model_state_dict(model, weights, adapter_name=model.active_adapter)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As in Transformers, which on several CPUs asks torch for a device cpu:1 that does not exist."""
        if checkpoint is None or self.args.device.type != "cpu":
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        for target, file in ((self.optimizer, OPTIMIZER_NAME), (self.lr_scheduler, SCHEDULER_NAME)):
            target.load_state_dict(torch.load(Path(checkpoint) / file, map_location="cpu", weights_only=True))

    def _evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """An evaluation during training: once after a step that ends an epoch, and not after the last step, because the
        run evaluates at its end anyway."""
        self.control.should_evaluate = False
        if self.state.global_step >= self.state.max_steps:
            return {}
        metrics: dict[str, float] = super()._evaluate(*arguments, **options)
        return metrics

    def _run_epoch(self, *, epoch: int, **rest: Any) -> None:
        # Transformers checks for the last step after a step, so a run that was stopped there would train one more.
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(epoch=epoch, **rest)
