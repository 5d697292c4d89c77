"""How fast the quantization kernels are beside ggml's own quantizer, on one core.

    python benchmarks/kernels.py [--rounds 9] [--rows 256] [--columns 4096] [--types Q4_K ...]

Both quantize the same normal weights, rounded to bfloat16 as a checkpoint's are, into the same bytes, which is checked.
They take turns, so that what else the machine does falls on both alike; a figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from edgetune.gguf import kernels
from edgetune.gguf.kernels.native import ggml_quantize

TARGETS = {"Q4_K": 5.0, "Q5_K": 5.0, "Q6_K": 3.0, "Q8_0": 1.0, "Q5_0": 1.0}
"""Times ggml's speed that each type has to reach."""


def main() -> None:
    """Take turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--columns", type=int, default=4096)
    parser.add_argument("--types", nargs="+", choices=TARGETS, default=list(TARGETS))
    arguments = parser.parse_args()
    kinds = [GGMLQuantizationType[name] for name in arguments.types]

    started = time.perf_counter()
    had_to_compile = any(kernels.needs_compiling(kinds, use) for use in (False, True))
    for use in (False, True):
        kernels.prepare(kinds, use)
    how = "compiled" if had_to_compile else "loaded"
    print(f"{how} in {time.perf_counter() - started:.2f} s\n")

    random = np.random.default_rng(0)
    weights = random.standard_normal((arguments.rows, arguments.columns), np.float32) * np.float32(0.02)
    weights = (weights.view(np.uint32) & 0xFFFF0000).view(np.float32)
    importance = random.standard_normal(arguments.columns, np.float32) ** 2
    print(f"{'type':6} {'importance':10} {'edgetune':>12} {'ggml':>12} {'ratio':>7}   million weights/s on one core")
    for kind in kinds:
        for columns in (None, importance):
            own, ggml = (statistics.median(turns) for turns in take_turns(kind, weights, columns, arguments.rounds))
            target = TARGETS[kind.name]
            verdict = "reached" if ggml / own >= target else "missed"
            print(
                f"{kind.name:6} {'no' if columns is None else 'yes':10} {weights.size / own / 1e6:12.1f} "
                f"{weights.size / ggml / 1e6:12.1f} {ggml / own:7.1f}   {verdict} {target:g}"
            )


def take_turns(
    kind: GGMLQuantizationType, weights: np.ndarray, importance: np.ndarray | None, rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of every round, ours and ggml's."""
    block_length, block_bytes = GGML_QUANT_SIZES[kind]
    reference = np.empty((len(weights), weights.shape[1] // block_length * block_bytes), np.uint8)
    own_seconds, ggml_seconds = [], []
    for _ in range(rounds + 1):
        own_seconds.append(timed(lambda: kernels.quantize_rows(kind, weights, importance)))
        ggml_seconds.append(timed(lambda: ggml_quantize(kind, weights, reference, importance)))
    assert np.array_equal(kernels.quantize_rows(kind, weights, importance), reference), "the bytes differ"
    # The first turn brings everything into memory.
    return own_seconds[1:], ggml_seconds[1:]


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
