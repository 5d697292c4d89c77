"""Seeded draws. Each has its own name as a part of the seed, so the draws do not influence each other.

They use only `random.random`, which gives the same numbers on every machine and in every version of Python.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction


def shuffled(count: int, seed: str) -> list[int]:
    """The numbers below `count` in a random order."""
    generator = random.Random(seed)
    keys = [generator.random() for _ in range(count)]
    return sorted(range(count), key=keys.__getitem__)


def draw(count: int, wanted: int, seed: str) -> list[int]:
    """`wanted` different numbers below `count`, in ascending order; at most all of them."""
    return sorted(shuffled(count, seed)[:wanted])


def repeat(count: int, times: float, seed: str) -> list[int]:
    """The numbers below `count`, each `times` times, in ascending order: 2.5 means twice, and half of them once
    more."""
    share = Fraction(str(times))
    return repeat_to(count, round(count * share), seed)


def repeat_to(count: int, wanted: int, seed: str) -> list[int]:
    """`wanted` of the numbers below `count` in ascending order, each as often as any other or once more."""
    if count == 0:
        return []
    whole, rest = divmod(wanted, count)
    once_more = set(draw(count, rest, seed))
    return [number for number in range(count) for _ in range(whole + (number in once_more))]


def apportion(wanted: int, sizes: Sequence[int]) -> list[int]:
    """`wanted` divided among groups in proportion to their sizes; the largest remainders are rounded up.

    `wanted` is at most the sum of the sizes; no share exceeds its group's size.
    """
    total = sum(sizes)
    shares = [Fraction(wanted * size, total) for size in sizes]
    floors = [int(share) for share in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda place: (floors[place] - shares[place], place))
    for place in by_remainder[: wanted - sum(floors)]:
        floors[place] += 1
    return floors
