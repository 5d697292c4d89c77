"""What a recipe's data are like, and whether they leak from training into evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgetune.data.example import Example
from edgetune.data.identity import Keyed, keyed_rows
from edgetune.data.load import LoadedData, SourceCounts
from edgetune.data.meter import CutReport, LengthReport, Meter, limits_of, measure_examples
from edgetune.data.overlap import Overlap, find_overlap
from edgetune.data.parts import count_parts
from edgetune.data.repetition import Finding, find_conflicts, find_duplicates, find_empty
from edgetune.recipe.data import Data


@dataclass(frozen=True)
class SideReport:
    """Training or evaluation data.

    `labels` counts examples by label (empty where there are none); `lengths`, `cuts` and `notes` are `Measured`'s.
    `parts` counts what conversations hold beside questions and answers. Findings are about distinct rows, however often
    weight or balance repeats them. `unended` counts the examples with an answer that ends in no end token.
    """

    sources: tuple[SourceCounts, ...]
    examples: int
    labels: dict[str, int]
    lengths: dict[str, dict[str, int]]
    cuts: tuple[CutReport, ...]
    empty: Finding
    duplicates: Finding
    conflicts: Finding
    notes: tuple[str, ...] = ()
    parts: dict[str, int] = field(default_factory=dict)
    unended: int = 0


@dataclass(frozen=True)
class DataReport:
    """Everything that `edgetune data check` tells.

    `unit` is what lengths are measured in; `held_out` and `unbalanced` are those of `LoadedData`.
    """

    unit: str
    train: SideReport
    evaluation: SideReport | None
    held_out: int
    unbalanced: int
    overlap: Overlap

    @property
    def leaks(self) -> bool:
        """True when an evaluation row is, exactly or nearly, among the training rows."""
        return self.overlap.exact + self.overlap.near > 0


def check_data(loaded: LoadedData, data: Data, meter: Meter) -> DataReport:
    """Look at a recipe's data as they were loaded. Raises DataError when no example fits into the recipe's lengths."""
    train_rows, eval_rows = keyed_rows(loaded.train), keyed_rows(loaded.evaluation)
    measured = measure_examples(loaded.train, meter, limits_of(data, meter))
    train = _side(loaded.train, loaded.train_sources, data.labels, measured, train_rows)
    evaluation = None
    if loaded.evaluation:
        measured = measure_examples(loaded.evaluation, meter, measured.limits)
        evaluation = _side(loaded.evaluation, loaded.eval_sources, data.labels, measured, eval_rows)
    overlap = find_overlap(train_rows, eval_rows)
    return DataReport(meter.unit, train, evaluation, loaded.held_out, loaded.unbalanced, overlap)


def _side(
    examples: Sequence[Example],
    sources: tuple[SourceCounts, ...],
    labels: Sequence[str],
    measured: LengthReport,
    rows: Sequence[Keyed],
) -> SideReport:
    counts = Counter(example.label for example in examples)
    return SideReport(
        sources,
        len(examples),
        {label: counts[label] for label in labels},
        measured.lengths,
        measured.cuts,
        find_empty(rows),
        find_duplicates(rows),
        find_conflicts(rows),
        measured.notes,
        count_parts([row for _, row in rows]),
        measured.unended,
    )
