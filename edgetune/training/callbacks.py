"""Callbacks of the training loop: progress, telemetry, and the signals that stop it."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from edgetune.events import ProgressHandle
from edgetune.training.telemetry import Telemetry

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what a cluster sends before it reclaims the machine."""

SAME_KEYSTROKE_SECONDS = 0.5
"""Two interrupts within this time count as one that was delivered twice."""


class Reporter(TrainerCallback):
    """Passes the trainer's logs to the telemetry, and its steps to the progress bar."""

    def __init__(self, telemetry: Telemetry, progress: ProgressHandle) -> None:
        self._telemetry, self._progress = telemetry, progress
        self._loss = ""

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
        self._telemetry.log(step=state.global_step, epoch=state.epoch or 0.0, values=logs)
        if "loss" in logs:
            self._loss = f"loss {logs['loss']:.3f}"

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        _log_what_is_saved(control)
        tokens_per_second = self._telemetry.tokens_per_second
        self._progress.advance(1, f"{self._loss}, {tokens_per_second:.0f} tokens/s")

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        _log_what_is_saved(control)


class StopAtStepEnd(TrainerCallback):
    """While it is open, Ctrl-C or SIGTERM finishes the current step, saves a checkpoint and stops.

    A second Ctrl-C stops at once; a second SIGTERM is ignored. Several processes must all stop after the same step, so
    they agree on it first.
    """

    def __init__(self, processes: int) -> None:
        self.stopped = False
        self._requested_at = math.inf
        self._alone, self._agreed = processes == 1, False
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """True once this process was asked to stop."""
        return self._requested_at < math.inf

    def agree(self, requested_anywhere: bool) -> None:
        """Stop after the step that begins now, if any process was asked to."""
        self._agreed = requested_anywhere

    def _request(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        # torchrun forwards what the terminal has sent already.
        if signum == signal.SIGINT and now - self._requested_at > SAME_KEYSTROKE_SECONDS:
            raise KeyboardInterrupt
        self._requested_at = min(self._requested_at, now)

    def __enter__(self) -> StopAtStepEnd:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._request) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.requested if self._alone else self._agreed:
            self.stopped = control.should_save = control.should_training_stop = True
            _log_what_is_saved(control)


def _log_what_is_saved(control: TrainerControl) -> None:
    """Log a row with every checkpoint: a resumed run continues its counts and begins a new mean of the loss."""
    control.should_log = control.should_log or control.should_save
