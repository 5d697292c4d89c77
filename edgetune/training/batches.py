"""The examples of each process at each step.

N processes with batches of b train exactly like one process with batches of N·b. Every process draws the same order,
cuts it into joint batches, and takes its part of each. The last joint batch of an epoch is divided evenly. A process
that gets nothing takes a filler, an example of weight 0, because gradients are exchanged at every step. (Accelerate's
sampler starts again from the first examples instead, which then count twice.)

The order depends only on seed and epoch, not on a shared random number generator, so a run that resumes in the middle
of an epoch has the same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from edgetune.data.tokenize import TokenizedData
from edgetune.recipe.schema import Recipe


@dataclass(eq=False)
class Batches(Sampler[list[int]]):
    """One process's part of each joint batch, as places in the data; the place after the last one is the filler's.

    `lengths` are in tokens, one per example. With `row_tokens`, whole examples are packed into rows of so many tokens,
    and `batch_size` counts rows; the rows are the same in every epoch, so that each has as many steps. With `shuffle`
    the order is random and new in each epoch. With `group_by_length`, a batch holds examples of about the same length,
    chosen among `window` joint batches.
    """

    lengths: Sequence[int]
    batch_size: int
    _: KW_ONLY
    rank: int
    processes: int
    shuffle: bool
    seed: int = 0
    group_by_length: bool = False
    window: int = 1
    row_tokens: int | None = None

    def __post_init__(self) -> None:
        self._rows = [[n] for n in range(len(self.lengths))]
        if self.row_tokens is not None:
            self._rows = fill_rows(self.lengths, self.row_tokens)
        self._joint, self._epoch = self.batch_size * self.processes, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._joint)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        for start in range(0, len(order), self._joint):
            batch = order[start : start + self._joint]
            first, end = (len(batch) * rank // self.processes for rank in (self.rank, self.rank + 1))
            yield [place for row in batch[first:end] for place in self._rows[row]] or [len(self.lengths)]

    def _order(self) -> list[int]:
        count = len(self._rows)
        if not self.shuffle:
            return sorted(range(count), key=lambda n: -self.lengths[n]) if self.group_by_length else [*range(count)]
        generator = torch.Generator().manual_seed(self.seed + self._epoch)
        if self.group_by_length:
            grouped: list[int] = get_length_grouped_indices(
                self.lengths, self._joint * self.window, generator=generator
            )
            return grouped
        order: list[int] = torch.randperm(count, generator=generator).tolist()
        return order


def training_batches(recipe: Recipe, data: TokenizedData, *, rank: int, processes: int) -> Batches:
    """The batches on which process `rank` of `processes` trains."""
    train = recipe.train
    return Batches(
        [len(example.input_ids) for example in data.examples],
        train.batch_size,
        rank=rank,
        processes=processes,
        shuffle=True,
        seed=train.seed,
        group_by_length=train.group_by_length,
        window=train.accumulate,
        row_tokens=data.max_length_tokens if train.packing else None,
    )


def fill_rows(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Places in `lengths`, in rows of at most `row_tokens`, by first-fit decreasing; a longer example has its own row.

    At most 11/9 of the fewest possible rows, plus one (Johnson 1973).
    """
    rows: list[list[int]] = []
    # A tree with the largest free room of each range of rows: it finds the first row that fits in log n.
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
