"""What a run measures while it trains: one row of metrics.jsonl per logged step, and totals for summary.json."""

from __future__ import annotations

import json
import time
from typing import IO, Any

import torch

from edgetune.measure import peak_resident_bytes
from edgetune.train.run_directory import RunDirectory


class Telemetry:
    """Counts tokens and seconds of a run, going on from `run`'s last logged row when it is resumed.

    Use as a context manager: it holds metrics.jsonl open and writes each row at once.
    """

    def __init__(self, run: RunDirectory) -> None:
        last: dict[str, Any] = next(reversed(run.read_metrics()), {})
        self._run = run
        self._file: IO[str] | None = None
        self._seconds_before: float = last.get("seconds", 0.0)
        self._started = time.monotonic()
        self._tokens_before: int = last.get("tokens", 0)
        self.train_tokens = self._tokens_before
        self.supervised_tokens: int = last.get("supervised_tokens", 0)

    def __enter__(self) -> Telemetry:
        self._file = self._run.metrics.open("a", encoding="utf-8")
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def train_seconds(self) -> float:
        """Seconds in the training loop so far, over all parts of a resumed run."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def tokens_per_second(self) -> float:
        """Training tokens per second, padding not counted, since this process began to train."""
        return (self.train_tokens - self._tokens_before) / max(time.monotonic() - self._started, 1e-9)

    def count_batch(self, tokens: int, supervised: int) -> None:
        """Count one batch: the tokens of its examples without padding, and how many of them are supervised."""
        self.train_tokens += tokens
        self.supervised_tokens += supervised

    def log(self, *, step: int, epoch: float, values: dict[str, float]) -> None:
        """Append one row to metrics.jsonl."""
        row: dict[str, Any] = {"step": step, "epoch": round(epoch, 4)}
        row |= {key: values[key] for key in ("loss", "eval_loss", "grad_norm", "learning_rate") if key in values}
        row |= {
            "tokens": self.train_tokens,
            "supervised_tokens": self.supervised_tokens,
            "seconds": round(self.train_seconds, 3),
            "tokens_per_second": round(self.tokens_per_second, 1),
        }
        assert self._file is not None
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


def peak_memory_bytes() -> int:
    """The largest use so far: of the CUDA allocator on a GPU, of the process's resident set elsewhere."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_resident_bytes()
