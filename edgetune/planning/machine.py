"""The machine of a plan: its memory, its speed, and the memory of a training process without a model."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch

from edgetune.errors import UsageError
from edgetune.training.frozen_linear import Product, onednn_is_quicker, remembered
from edgetune.training.products import bfloat16_product, onednn_product
from edgetune.usage import available_memory_bytes

DeviceKind = Literal["cpu", "gpu"]

MATMUL_SECONDS = 0.5
"""The duration of a speed measurement."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes")

_EMPTY_PROCESS = """
import sys
from edgetune.models.load import load_model
from edgetune.training import run, saving, settings, telemetry, trainer
import peft, torch
if "quantized" in sys.argv:
    import bitsandbytes
layer = torch.nn.Linear(256, 256)
layer(torch.randn(64, 256)).sum().backward()
torch.optim.AdamW(layer.parameters(), fused=True).step()
with open("/proc/self/statm") as file:
    print(int(file.read().split()[1]) * 4096)
"""
"""A training process before it loads a model: libraries, threads, and the first kernels."""


@dataclass(frozen=True)
class Machine:
    """A CPU or a GPU, its memory for training, and the source of that number."""

    kind: DeviceKind
    memory_bytes: int | None
    memory_source: str


def find_machine(device_memory: str | None, device: DeviceKind | None) -> Machine:
    """This machine's GPU or CPU; with `device_memory` ("16GB") a device of that size, a GPU unless `device` is cpu.

    Raises UsageError for an invalid size.
    """
    if device_memory is not None:
        return Machine(device or "gpu", parse_size(device_memory), "--device-memory")
    has_gpu = torch.cuda.is_available()
    kind: DeviceKind = device or ("gpu" if has_gpu else "cpu")
    if kind == "cpu":
        return Machine(kind, _available_bytes(), "available on this machine now")
    if not has_gpu:
        return Machine(kind, None, "unknown: there is no GPU here, and --device-memory is not given")
    free, _ = torch.cuda.mem_get_info()
    return Machine(kind, int(free), f"free on {torch.cuda.get_device_name()}")


def parse_size(text: str) -> int:
    """Bytes of a size such as 16GB, 24GiB or 8000000000; G is 10⁹ and Gi is 2³⁰. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if match is None or match[2] not in _UNITS or float(match[1]) == 0:
        raise UsageError(f"{text} is not a size", where="--device-memory", remedy="write it as 16GB or 24GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def empty_process_bytes(*, quantized: bool) -> int:
    """Resident memory of a training process before it loads a model, with bitsandbytes where it is `quantized`.

    Measured in a process of its own, once for the installed versions, and remembered.
    """
    versions = {name: metadata.version(name) for name in _PACKAGES}
    command = [sys.executable, "-c", _EMPTY_PROCESS, *(["quantized"] if quantized else [])]

    def measure() -> int:
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])

    return int(remembered("empty-process", (versions, sys.version, quantized, _EMPTY_PROCESS), measure))


def matmul_flops_per_second(rows: int, inputs: int, outputs: int, dtype: torch.dtype, *, bfloat16: bool) -> float:
    """The speed of this CPU for (rows, inputs) times a layer's weight, with the products that training uses here.

    With `bfloat16`, frozen layers multiply in it although the rest is float32.
    """
    x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    product: Product = torch.nn.functional.linear
    if bfloat16:
        product, weight = bfloat16_product, weight.bfloat16()
    elif dtype == torch.float32 and onednn_is_quicker(weight):
        product = onednn_product
    product(x, weight)
    started, rounds = time.perf_counter(), 0
    while time.perf_counter() - started < MATMUL_SECONDS:
        product(x, weight)
        rounds += 1
    return 2 * rows * inputs * outputs * rounds / (time.perf_counter() - started)


def _available_bytes() -> int | None:
    """Memory that is free here or can be freed, within the container's limit; None where the system does not say."""
    free = available_memory_bytes()
    try:  # a limit of "max" is no number
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):
        return free
    return limit - used if free is None else min(free, limit - used)
