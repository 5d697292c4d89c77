"""Which examples each process sees at each step.

N processes with batches of b are to train as one process with batches of N·b would, to the last example of the last
epoch. So every process draws the same order, cuts it into joint batches, and takes its part of each. The last joint
batch of an epoch is divided evenly, and a process for which nothing is left gets a filler, an example that counts for
nothing: gradients are exchanged at every step, so every process needs one. (The sampler that Accelerate wraps around a
loader starts again from the first examples instead, which then count twice.)

The order depends on seed and epoch alone, not on a random number generator that other things draw from too. So a run
that resumes in the middle of an epoch finds the same order again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class JointBatches(Sampler[list[int]]):
    """One process's part of each joint batch, as places in the data; the place behind the last one is the filler's.

    `lengths` are those of the examples, in tokens. The order is random and new in each epoch, `shuffle` permitting;
    with `group_by_length`, examples of about the same length come together, among `window` joint batches.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        *,
        rank: int,
        processes: int,
        shuffle: bool,
        seed: int = 0,
        group_by_length: bool = False,
        window: int = 1,
    ) -> None:
        self._lengths, self._joint = list(lengths), batch_size * processes
        self._rank, self._processes = rank, processes
        self._shuffle, self._seed, self._group_by_length, self._window = shuffle, seed, group_by_length, window
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order: a run that resumes begins with the epoch that it was stopped in."""
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._lengths) / self._joint)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        for start in range(0, len(order), self._joint):
            batch = order[start : start + self._joint]
            first, end = (len(batch) * rank // self._processes for rank in (self._rank, self._rank + 1))
            yield batch[first:end] or [len(order)]

    def _order(self) -> list[int]:
        count = len(self._lengths)
        if not self._shuffle:
            return sorted(range(count), key=lambda n: -self._lengths[n]) if self._group_by_length else [*range(count)]
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        if self._group_by_length:
            grouped: list[int] = get_length_grouped_indices(
                self._lengths, self._joint * self._window, generator=generator
            )
            return grouped
        order: list[int] = torch.randperm(count, generator=generator).tolist()
        return order
