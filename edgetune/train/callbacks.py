"""What watches the training loop: progress and telemetry, and the user's Ctrl-C."""

from __future__ import annotations

import math
import signal
import threading
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from edgetune.console import ProgressHandle
from edgetune.errors import NumericalError
from edgetune.train.telemetry import Telemetry


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
