"""What a finished run reports, as summary.json holds it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from edgetune.training.diagnosis import Diagnosis


class Summary(BaseModel):
    """The fields of summary.json, explained in docs/runs.md. Losses are mean negative log-likelihoods in nats per
    supervised token (or text, with a classification head).

    Fields with a default are missing in the runs of older versions.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    task: str
    method: str
    base: str
    backend: str = "transformers"
    trainable_parameters: int
    total_parameters: int
    trainable_percent: float
    steps: int
    epochs: float
    train_tokens: int
    supervised_tokens: int
    train_seconds: float
    seconds_per_epoch: float
    tokens_per_second: float
    peak_memory_bytes: int
    energy_kwh: float | None = None
    co2_kg: float | None = None
    device: str
    dtype: str
    frozen_products: str | None = None
    final_train_loss: float
    eval_loss: float | None
    evaluation: dict[str, Any] | None = None
    warnings: list[Diagnosis] = []
    seed: int
    versions: dict[str, str]
