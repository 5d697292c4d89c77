"""Measures a run while it trains: one row of metrics.jsonl per logged step, and totals for summary.json."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import torch

from edgetune.recipe.schema import Recipe
from edgetune.training.energy import EnergyMeter
from edgetune.training.run_directory import RunDirectory
from edgetune.training.trackers import Trackers
from edgetune.usage import forget_peak_resident, peak_resident_bytes


class Telemetry:
    """Counts tokens, seconds, memory and energy of a run. A resumed run continues from its last logged row.

    Use as a context manager: it keeps metrics.jsonl and the recipe's trackers open and writes each row at once. Of
    several processes that train together, one `writes`.
    """

    def __init__(self, run: RunDirectory, recipe: Recipe, *, writes: bool = True) -> None:
        self._earlier = run.read_metrics()
        last: dict[str, Any] = self._earlier[-1] if self._earlier else {}
        self._run, self._writes = run, writes
        self._file: IO[str] | None = None
        self._trackers = Trackers(recipe, run.path)
        self._energy: EnergyMeter | None = None
        if recipe.train.energy and writes:
            self._energy = EnergyMeter(energy_kwh=last.get("energy_kwh"), co2_kg=last.get("co2_kg"))
        self._seconds_before: float = last.get("seconds", 0.0)
        self._seconds, self._running_since = 0.0, math.inf
        self._peak_before: int = last.get("peak_memory_bytes", 0)
        self._tokens_before: int = last.get("tokens", 0)
        self.train_tokens = self._tokens_before
        self.supervised_tokens: int = last.get("supervised_tokens", 0)
        self._logged_tokens, self._logged_seconds = self.train_tokens, self._seconds_before

    def __enter__(self) -> Telemetry:
        if self._writes:
            self._file = self._run.metrics.open("a", encoding="utf-8")
            self._trackers.start(self._earlier)
        if self._energy is not None:
            self._energy.start()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            forget_peak_resident()
        self._running_since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self._energy is not None:
            self._energy.stop()
        self._trackers.close()
        if self._file is not None:
            self._file.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The seconds inside do not count as training."""
        self._seconds, self._running_since = self._seconds_here, math.inf
        try:
            yield
        finally:
            self._running_since = time.monotonic()

    @property
    def _seconds_here(self) -> float:
        return self._seconds + max(time.monotonic() - self._running_since, 0.0)

    @property
    def train_seconds(self) -> float:
        """Seconds in the training loop so far, over all parts of a resumed run, without evaluations."""
        return self._seconds_before + self._seconds_here

    @property
    def tokens_per_second(self) -> float:
        """Training tokens per second, padding not counted, since this process began to train."""
        return (self.train_tokens - self._tokens_before) / max(self._seconds_here, 1e-9)

    @property
    def peak_memory_bytes(self) -> int:
        """The peak while training: of the CUDA allocator on a GPU, of the process's resident set elsewhere."""
        now: int = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_resident_bytes()
        return max(self._peak_before, now)

    def measure_energy(self) -> EnergyMeter | None:
        """The meter, brought up to date; None where the recipe does not ask for it."""
        if self._energy is not None:
            self._energy.measure()
        return self._energy

    def count_batch(self, tokens: int, supervised: int) -> None:
        """Count one batch: the tokens of its examples without padding, and how many of them are supervised."""
        self.train_tokens += tokens
        self.supervised_tokens += supervised

    def log(self, *, step: int, epoch: float, values: dict[str, float]) -> None:
        """Append one row to metrics.jsonl and send it to the trackers; a value that is not finite becomes null."""
        if not self._writes:
            return
        row: dict[str, Any] = {"step": step, "epoch": round(epoch, 4)}
        logged = {key: value for key, value in values.items() if _is_logged(key, value)}
        row |= {key: value if math.isfinite(value) else None for key, value in logged.items()}
        seconds = self.train_seconds
        row |= {"tokens": self.train_tokens, "supervised_tokens": self.supervised_tokens, "seconds": round(seconds, 3)}
        if self.train_tokens > self._logged_tokens:
            since = max(seconds - self._logged_seconds, 1e-9)
            row["tokens_per_second"] = round((self.train_tokens - self._logged_tokens) / since, 1)
            self._logged_tokens, self._logged_seconds = self.train_tokens, seconds
        row["peak_memory_bytes"] = self.peak_memory_bytes
        if self._energy is not None and self._energy.energy_kwh is not None:
            row |= {"energy_kwh": self._energy.energy_kwh, "co2_kg": self._energy.co2_kg}
        assert self._file is not None
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._trackers.log(row)


def _is_logged(key: str, value: object) -> bool:
    """True for the values of training, and for every number of an evaluation."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and (key in ("loss", "grad_norm", "learning_rate") or key.startswith("eval_"))
