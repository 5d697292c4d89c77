"""The report of `edgetune data check`: statistics of a recipe's data, and leaks from training into evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edgetune.data.conversation import REASONING_KEYS
from edgetune.data.example import Example, Message
from edgetune.data.identity import Keyed, keyed_rows
from edgetune.data.load import LoadedData, SourceCounts
from edgetune.data.meter import CutReport, LengthReport, Meter, limits_of, measure_examples
from edgetune.data.overlap import Overlap, find_overlap
from edgetune.data.repetition import Finding, find_conflicts, find_duplicates, find_empty
from edgetune.recipe.data import Data


@dataclass(frozen=True)
class SideReport:
    """Training or evaluation data.

    `labels` counts examples by label (empty without labels); `lengths`, `cuts` and `notes` are LengthReport's. `parts`
    counts the tools, calls, reasoning and so on of conversations. Findings count distinct rows, however often weight or
    balance repeats them. `unended` counts the examples with an answer without an end token.
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
    """The report. `unit` is the unit of lengths; `held_out` and `unbalanced` are LoadedData's."""

    unit: str
    train: SideReport
    evaluation: SideReport | None
    held_out: int
    unbalanced: int
    overlap: Overlap

    @property
    def leaks(self) -> bool:
        """True if an evaluation row is, exactly or nearly, in the training data."""
        return self.overlap.exact + self.overlap.near > 0


def check_data(loaded: LoadedData, data: Data, meter: Meter) -> DataReport:
    """Check loaded data. Raises DataError if no example fits into the recipe's lengths."""
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
        _count_parts([row for _, row in rows]),
        measured.unended,
    )


def _count_parts(rows: Sequence[Example]) -> dict[str, int]:
    """Part -> the number of rows or turns that have it, the most frequent first."""
    found: Counter[str] = Counter()
    for row in rows:
        if row.tools:
            found["conversations with tools"] += 1
        for message in row.messages:
            found.update(_parts(message))
    return dict(found.most_common())


def _parts(message: Message) -> Iterator[str]:
    if message.role == "system":
        yield "system messages"
    if message.role == "tool":
        yield "results of tools"
    if message.tool_calls:
        yield "turns that call tools"
    if any(key in REASONING_KEYS for key, _ in message.more):
        yield "turns with reasoning"
    if message.role == "assistant" and not message.supervised:
        yield "answers of weight 0, which are not learned"
