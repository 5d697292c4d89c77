"""The duration of a training, from the operations of its steps and the speed of the device."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from edgetune.errors import UsageError
from edgetune.planning.machine import Machine, matmul_flops_per_second

GPUS: dict[str, float] = {
    "t4": 65e12,
    "v100": 125e12,
    "l4": 121e12,
    "a10": 125e12,
    "a100": 312e12,
    "l40s": 362e12,
    "rtx3090": 71e12,
    "rtx4090": 165e12,
    "h100": 989e12,
    "h200": 989e12,
}
"""Dense 16-bit operations per second with 32-bit sums, from the data sheets."""

CPU_SHARES = (0.3, 1.0)
GPU_SHARES = (0.15, 0.5)
"""The share of the rate that trainings reach: of the measured rate on a CPU, of the data sheet's on a GPU."""


@dataclass(frozen=True)
class Duration:
    """Seconds of one optimizer update and of the run, from fast to slow; None where they are unknown.

    `rests_on` names the source of the speed.
    """

    seconds_per_update: tuple[float, float] | None
    seconds: tuple[float, float] | None
    rests_on: str


def parse_flops(text: str) -> float:
    """A rate such as 312T (operations per second), or a GPU's name. Raises UsageError."""
    name = re.sub(r"[\s_-]|nvidia|geforce|tesla", "", text.lower())
    if name in GPUS:
        return GPUS[name]
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:([gt])(?:flops)?|(e\d+))", name)
    if match is None:
        raise UsageError(
            f"{text} is not a rate", where="--flops", remedy=f"write 312T, or one of {', '.join(sorted(GPUS))}"
        )
    return float(match[1] + match[3]) if match[3] else float(match[1]) * {"g": 1e9, "t": 1e12}[match[2]]


def estimate_duration(
    *,
    flops_per_token: float,
    tokens_per_update: float,
    updates: int | None,
    machine: Machine,
    flops: str | None,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    bfloat16: bool = False,
) -> Duration:
    """The range for a given rate, or for one measured on a product of `shape` (rows, inputs, outputs).

    `updates` is None where the number is unknown. With `bfloat16` frozen layers multiply in it.
    """
    if flops is not None:
        rate, shares = parse_flops(flops), CPU_SHARES if machine.kind == "cpu" else GPU_SHARES
        source = f"{rate / 1e12:g} TFLOP/s (--flops)"
    elif machine.kind == "cpu":
        rate, shares = matmul_flops_per_second(*shape, dtype, bfloat16=bfloat16), CPU_SHARES
        products = "bfloat16" if bfloat16 else str(dtype).removeprefix("torch.")
        source = f"{rate / 1e9:.0f} GFLOP/s measured here on products of {products}"
    elif torch.cuda.is_available() and (known := _known_gpu(torch.cuda.get_device_name())):
        rate, shares, source = GPUS[known], GPU_SHARES, f"{GPUS[known] / 1e12:g} TFLOP/s from the data sheet of {known}"
    else:
        return Duration(
            None, None, f"the speed of the GPU is unknown: give --flops, a rate or one of {', '.join(sorted(GPUS))}"
        )
    quick, slow = (flops_per_token * tokens_per_update / (rate * share) for share in reversed(shares))
    low, high = (f"{100 * share:.0f}" for share in shares)
    return Duration(
        (quick, slow),
        None if updates is None else (quick * updates, slow * updates),
        f"{source}, of which trainings reach {low} to {high} %",
    )


def _known_gpu(name: str) -> str | None:
    plain = re.sub(r"[\s_-]", "", name.lower())
    return next((known for known in sorted(GPUS, key=len, reverse=True) if known in plain), None)
