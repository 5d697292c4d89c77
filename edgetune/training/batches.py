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
from typing import Protocol

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class Batches(Protocol):
    """What both samplers here are: places in the data, batch by batch, in an order of its own in every epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order: a run that resumes begins with the epoch that it was stopped in."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[int]]: ...


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


class PackedBatches(Sampler[list[int]]):
    """The same of rows that are filled with whole examples up to `row_tokens`; `batch_size` counts rows.

    Which examples share a row is decided once, so that every epoch has as many steps; the rows' order is new in each.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        row_tokens: int,
        batch_size: int,
        *,
        rank: int,
        processes: int,
        shuffle: bool,
        seed: int = 0,
    ) -> None:
        self._filler = len(lengths)
        self._rows = fill_rows(lengths, row_tokens)
        self._batches = JointBatches(
            [1] * len(self._rows), batch_size, rank=rank, processes=processes, shuffle=shuffle, seed=seed
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the order."""
        self._batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        rows = [*self._rows, [self._filler]]
        for batch in self._batches:
            yield [place for row in batch for place in rows[row]]


def fill_rows(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Places in `lengths`, in rows of `row_tokens` at most, by first-fit decreasing; a longer one has its own row.

    At most 11/9 of the fewest rows possible and one more (Johnson 1973).
    """
    rows: list[list[int]] = []
    # A tree over the rows' room, whose root says whether any is left: the first row that fits is found in log n.
    size = 1 << max(len(lengths) - 1, 0).bit_length()
    room = [row_tokens] * (2 * size)
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        wanted = min(lengths[place], row_tokens)
        node = 1
        while node < size:
            node = 2 * node if room[2 * node] >= wanted else 2 * node + 1
        if node - size == len(rows):
            rows.append([])
        rows[node - size].append(place)
        room[node] -= wanted
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return rows
