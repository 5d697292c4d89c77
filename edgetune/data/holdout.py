"""Training examples that are held out for evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.data.draw import apportion, shuffled
from edgetune.data.example import Example
from edgetune.data.identity import key_of
from edgetune.data.near_duplicates import group_near_duplicates
from edgetune.errors import DataError, RecipeError

COMPARED_CHARACTERS = 50_000_000
"""Above this total length, only equal texts are kept together, not near-duplicates. Finding near-duplicates among
45,516 tweets of 4.7 million characters took 4 s and 190 MB; both grow with the texts."""


def hold_out(examples: Sequence[Example], holdout: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples for training, and a share (below 1) or number of them for evaluation; both in the given order.

    Each label is held out in proportion. Rows that ask the same (`identity.key_of`) or nearly the same
    (`near_duplicates`) stay on one side, so slightly fewer may be held out than requested. Rows are counted and
    evaluated once, however often weight repeats them.

    Raises RecipeError for a number that is not whole, and DataError if nothing would be left on one side.
    """
    if holdout >= 1 and holdout != int(holdout):
        raise RecipeError(f"is {holdout:g}; it must be a share below 1 or a whole number", where="data.holdout")
    rows = list({example.where: example for example in examples}.values())
    wanted = round(len(rows) * holdout) if holdout < 1 else int(holdout)
    if not 0 < wanted < len(rows):
        raise DataError(
            f"holds out {wanted} of {len(rows)} examples, but both training and evaluation need some",
            where="data.holdout",
            remedy="raise it, or add data" if wanted == 0 else "lower it, or add data",
        )
    held = _drawn(rows, wanted, seed)
    if not held:
        raise DataError(
            f"cannot hold out {wanted} of {len(rows)} examples, because more than {wanted} ask nearly the same",
            where="data.holdout",
            remedy="raise it, or remove the duplicates",
        )
    return (
        [example for example in examples if example.where not in held],
        [example for example in rows if example.where in held],
    )


def _drawn(rows: Sequence[Example], wanted: int, seed: int) -> set[str]:
    """`where` of the held-out rows: whole groups of near-duplicates, label by label."""
    strata: dict[str, list[list[Example]]] = {}
    for group in _groups(rows):
        strata.setdefault(group[0].label or "", []).append(group)
    sizes = [sum(map(len, stratum)) for stratum in strata.values()]
    held: set[str] = set()
    for (label, stratum), share in zip(strata.items(), apportion(wanted, sizes), strict=True):
        left = share
        for place in shuffled(len(stratum), f"{seed} holdout {label}"):
            if len(stratum[place]) <= left:
                left -= len(stratum[place])
                held.update(row.where for row in stratum[place])
    return held


def _groups(rows: Sequence[Example]) -> list[list[Example]]:
    """The rows in groups that ask the same or, below COMPARED_CHARACTERS, nearly the same."""
    same: dict[str, list[Example]] = {}
    for row in rows:
        same.setdefault(key_of(row), []).append(row)
    if sum(map(len, same)) > COMPARED_CHARACTERS:
        return list(same.values())
    near: dict[int, list[Example]] = {}
    for first, group in zip(group_near_duplicates(list(same)), same.values(), strict=True):
        near.setdefault(first, []).extend(group)
    return list(near.values())
