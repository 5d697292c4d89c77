"""Rows filled with whole examples: nothing is lost, nothing is seen twice, and nothing is longer than a row."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.training.batches import Batches, fill_rows

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


@given(LENGTHS, st.integers(10, 80))
def test_every_example_is_in_one_row_that_has_room_for_it(lengths: list[int], row_tokens: int):
    rows = fill_rows(lengths, row_tokens)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    for row in rows:
        assert sum(lengths[place] for place in row) <= row_tokens or len(row) == 1


@given(LENGTHS, st.integers(60, 120))
def test_rows_are_nearly_as_few_as_can_be(lengths: list[int], row_tokens: int):
    fewest = math.ceil(sum(lengths) / row_tokens)
    assert len(fill_rows(lengths, row_tokens)) <= 2 * fewest + 1


@given(LENGTHS, st.integers(10, 80))
def test_each_example_goes_into_the_first_row_that_has_room(lengths: list[int], row_tokens: int):
    rows: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        wanted = min(lengths[place], row_tokens)
        fits = (row for row in rows if sum(min(lengths[n], row_tokens) for n in row) + wanted <= row_tokens)
        row = next(fits, None)
        if row is None:
            rows.append([place])
        else:
            row.append(place)
    assert fill_rows(lengths, row_tokens) == rows


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_the_rows_of_an_epoch(processes: int):
    lengths = [7, 3, 9, 2, 5, 8, 1, 4, 6, 9, 2]
    parts = [
        Batches(lengths, 2, rank=rank, processes=processes, shuffle=True, seed=4, row_tokens=10)
        for rank in range(processes)
    ]
    seen = [place for part in parts for batch in part for place in batch if place < len(lengths)]
    assert sorted(seen) == list(range(len(lengths)))
    assert len({len(part) for part in parts}) == 1
    first = list(parts[0])
    parts[0].set_epoch(1)
    assert list(parts[0]) != first
