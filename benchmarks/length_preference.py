"""How often a calibration accuses a judge of a preference for length: one that has none, and one that has.

    python benchmarks/length_preference.py [--runs 20000] [--seed 0]

A judge errs on a share of the pairs where people prefer the shorter answer, and on a share of those where they prefer
the longer one. `covered`: the interval holds the true difference. `accused`: the interval lies beyond 0.1 to either
side, so that the judge fails.
"""

from __future__ import annotations

import argparse

import numpy as np

from edgetune.judging.calibration.bars import Bars
from edgetune.judging.calibration.length_preference import measure_length_preference

PAIRS = ((5, 5), (5, 95), (15, 15), (50, 50), (150, 150))
"""Where people prefer the shorter answer, and where they prefer the longer one."""

ERRORS = ((0.05, 0.05), (0.1, 0.1), (0.3, 0.3), (0.5, 0.5), (0.4, 0.1), (0.7, 0.1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    print(f"{'pairs':>9}{'error rates':>14}{'covered':>10}{'accused':>10}")
    for pairs in PAIRS:
        for rates in ERRORS:
            covered, accused = simulate(generator, pairs, rates, options.runs)
            print(
                f"{f'{pairs[0]}, {pairs[1]}':>9}{f'{rates[0]}, {rates[1]}':>14}{covered:>10.1%}{accused:>10.1%}",
                flush=True,
            )


def simulate(
    generator: np.random.Generator, pairs: tuple[int, int], rates: tuple[float, float], runs: int
) -> tuple[float, float]:
    """The shares of runs in which the interval covers the truth, and in which the judge is accused."""
    golds, longer = np.ones(sum(pairs)), np.repeat([-1.0, 1.0], pairs)
    chances, truth, limit = np.repeat(rates, pairs), rates[0] - rates[1], Bars().length
    covered = accused = 0
    for _ in range(runs):
        verdicts = np.where(generator.random(golds.size) < chances, -1.0, 1.0)
        found = measure_length_preference(verdicts, golds, longer)
        assert found is not None
        covered += found.interval.lower <= truth <= found.interval.upper
        accused += found.interval.lower > limit or found.interval.upper < -limit
    return covered / runs, accused / runs


if __name__ == "__main__":
    main()
