"""Renders a data report for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgetune.data.answer_end import NEVER_ENDS
from edgetune.data.check import DataReport, SideReport
from edgetune.data.overlap import Leak
from edgetune.data.places import name_places


def render_report(report: DataReport) -> RenderableType:
    """Counts, labels, lengths, cuts, findings and the verdict."""
    sides = {"train": report.train, "eval": report.evaluation}
    given = {name: side for name, side in sides.items() if side is not None}
    parts: list[RenderableType] = [_counts(given), *_sources(given), *_draws(report)]
    if report.train.labels:
        parts.append(_labels(given))
    parts += [_lengths(given, report.unit), *_cuts(given), *_unended(given), *_findings(given), _verdict(report)]
    return Group(*parts)


def _counts(sides: dict[str, SideReport]) -> RenderableType:
    table = _table("rows", "source", numbers=("read", "after labels", "after cap", "after weight"))
    for name, side in sides.items():
        for source in side.sources:
            counts = (source.read, source.labelled, source.capped, source.weighted)
            table.add_row(name, Path(source.source).name, *map(str, counts))
    return table


def _sources(sides: dict[str, SideReport]) -> Iterator[Text]:
    """Contents of conversations, and rows and columns that are not learned."""
    for name, side in sides.items():
        for source in side.sources:
            file = f"{name}: {Path(source.source).name}"
            if source.left_out:
                count = source.read - source.labelled
                why = "by the label map" if side.labels else "because all their answers have weight 0"
                yield Text(f"{file}: {count} rows left out {why} ({name_places(source.left_out, count)})")
            if source.unread:
                found = ", ".join(f"{key} ({count})" for key, count in source.unread.items())
                yield Text(f"{file}: not read (number of values): {found}")
        if side.parts:
            yield Text(f"{name}: {', '.join(f'{count} {part}' for part, count in side.parts.items())}")
        yield from (Text(f"{name}: {note}") for note in side.notes)


def _draws(report: DataReport) -> Iterator[Text]:
    if report.held_out:
        yield Text(f"held out of train for evaluation: {report.held_out}")
    if report.unbalanced != report.train.examples:
        yield Text(f"balanced by label: {report.unbalanced} examples became {report.train.examples}")
    evaluated = 0 if report.evaluation is None else report.evaluation.examples
    yield Text(f"{report.train.examples} training examples, {evaluated} evaluation examples")


def _labels(sides: dict[str, SideReport]) -> RenderableType:
    table = _table("label", numbers=[f"{name}{unit}" for name in sides for unit in ("", ", %")])
    for label in next(iter(sides.values())).labels:
        cells = []
        for side in sides.values():
            cells += [str(side.labels[label]), f"{100 * side.labels[label] / side.examples:.1f}"]
        table.add_row(Text(label), *cells)
    return table


def _lengths(sides: dict[str, SideReport], unit: str) -> RenderableType:
    percentiles = list(next(iter(sides["train"].lengths.values())))
    headings = [name if name == "max" else f"{name} %" for name in percentiles]
    table = _table(f"{unit} needed by", "", numbers=headings)
    for name, side in sides.items():
        for what, lengths in side.lengths.items():
            table.add_row(name, what, *(str(lengths[percentile]) for percentile in percentiles))
    return table


def _cuts(sides: dict[str, SideReport]) -> Iterator[Text]:
    for name, side in sides.items():
        for cut in side.cuts:
            where = name_places(cut.dropped_rows, cut.dropped)
            dropped = f", {cut.dropped} left out because no supervised token remains ({where})" if cut.dropped else ""
            yield Text(
                f"{name}: {cut.field}, {cut.limit_tokens} tokens: {cut.cut} cut{dropped}, {cut.lost_tokens} tokens lost"
            )


def _unended(sides: dict[str, SideReport]) -> Iterator[Text]:
    for name, side in sides.items():
        if side.unended:
            yield Text(f"{name}: {side.unended} of {side.examples} {NEVER_ENDS}", style="yellow")


def _findings(sides: dict[str, SideReport]) -> Iterator[Text]:
    for name, side in sides.items():
        for what, finding in (
            ("rows that are empty", side.empty),
            ("rows that repeat another", side.duplicates),
            ("texts with several labels", side.conflicts),
        ):
            if finding.count:
                more = (
                    [(f"… and {finding.count - len(finding.shown)} more")] if finding.count > len(finding.shown) else []
                )
                yield Text(f"{name}: {what}: {finding.count}")
                yield from (Text(f"  {line}", style="dim") for line in [*finding.shown, *more])


def _verdict(report: DataReport) -> RenderableType:
    if report.evaluation is None:
        return Text("\nThere is no evaluation data, so nothing can leak.")
    overlap = report.overlap
    if not report.leaks:
        return Text.assemble(
            "\n", (" NO LEAKAGE ", "bold black on green"), "  no evaluation row is in the training data"
        )
    heading = Text.assemble(
        "\n",
        (" LEAKAGE ", "bold white on red"),
        f"  evaluation rows in the training data: {overlap.exact} exactly, {overlap.near} nearly",
    )
    return Group(heading, *map(_leak, overlap.shown))


def _leak(leak: Leak) -> Text:
    alike = "" if leak.similarity == 1 else f"nearly ({100 * leak.similarity:.0f} %) "
    return Text.assemble(f"  {leak.evaluation} is {alike}{leak.train}\n", (f"    {leak.text}", "dim"))


def _table(*texts: str, numbers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in texts:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table
