"""A judgement for the terminal: values that `console.result` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from edgetune.judging.gate.comparison import Comparison, Outcome
from edgetune.judging.gate.gate import NO_VERDICT, Verdict
from edgetune.judging.gate.wording import difference_text, percent, probability, range_text, size_text
from edgetune.judging.report.matrices import MatrixPanel, shown_columns
from edgetune.judging.report.metrics_table import label_rows, labels_to_look_at, metrics_headings, metrics_rows
from edgetune.judging.report.validity import cost_text, judge_figures
from edgetune.judging.results.judgement import Judgement
from edgetune.visible_text import shortened, visible

_MOST_LABELS = 6
_MOST_CONFUSIONS = 10
_LABEL_CHARACTERS = 30

_STYLES = {
    Outcome.PASS: "black on green",
    Outcome.REGRESSION: "white on red",
    Outcome.INCONCLUSIVE: "black on yellow",
    Outcome.JUDGE_INVALID: "white on magenta",
}
_COLORS = {
    Outcome.PASS: "green",
    Outcome.REGRESSION: "red",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.JUDGE_INVALID: "magenta",
}


def render_matrices(panels: Sequence[MatrixPanel]) -> RenderableType:
    """Confusion matrices next to each other, below each other where the terminal is too narrow. At least one panel."""
    return _Matrices(panels)


class _Matrices:
    """The matrices where they fit into the terminal; otherwise the largest confusions: no number is cut."""

    def __init__(self, panels: Sequence[MatrixPanel]) -> None:
        self._panels = panels

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = shown_columns(self._panels)
        tables = [_matrix(panel, columns) for panel in self._panels]
        if (
            max(Measurement.get(console, options.update(width=10_000), table).minimum for table in tables)
            > options.max_width
        ):
            yield Columns([_confusions(panel, columns) for panel in self._panels], padding=(0, 3))
            yield Text(f"The report (--out) has the matrices of {len(columns)} columns.\n", style="dim")
        else:
            headed = [Group(_heading(panel), table, "") for panel, table in zip(self._panels, tables, strict=True)]
            yield Columns(headed, padding=(0, 3))
            yield Text("Down: the true label. Across: what was predicted.\n", style="dim")


def render_metrics(judgement: Judgement) -> RenderableType:
    """The table of metrics: baseline, candidate and the difference, as far as there are. Of many labels only those that
    matter most have rows."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    heading, *columns = metrics_headings(judgement)
    table.add_column(heading)
    for column in columns:
        table.add_column(column, justify="right")
    for row in metrics_rows(judgement):
        table.add_row(*(Text(cell) for cell in row))
    labels = dict(label_rows(judgement))
    shown = list(labels) if len(labels) <= _MOST_LABELS else labels_to_look_at(judgement, _MOST_LABELS)
    for label in shown:
        for title, *cells in labels[label]:
            table.add_row(Text(f"{shortened(label, _LABEL_CHARACTERS)}: {title}"), *map(Text, cells))
    if len(shown) == len(labels):
        return table
    chosen = "whose F1 fell most" if judgement.baseline is not None else "of the lowest F1"
    note = f"Of {len(labels):,} labels, the {len(shown)} {chosen}. The report (--out) has all of them.\n"
    return Group(table, Text(note, style="dim"))


def render_verdict(verdict: Verdict | None) -> RenderableType:
    """The verdict and its reason; several metrics as a table; or that nothing was compared."""
    if verdict is None:
        return Text(NO_VERDICT)
    comparisons = verdict.comparisons
    reason = Text(visible(verdict.reason))
    grid = Table.grid(padding=(0, 2))
    grid.add_row(Text(f" {verdict.outcome} ", style=f"bold {_STYLES[verdict.outcome]}"), reason)
    return Group(_comparisons(comparisons), grid) if len(comparisons) > 1 else grid


def render_judges(judgement: Judgement) -> RenderableType:
    """The judges, whether they can be trusted, and their costs. Only where there was a judge (`was_judged`)."""
    about, *figures = judge_figures(judgement)
    lines = [Text(visible(f"{about.title} {about.text}"), style="bold")]
    for figure in figures:
        if figure.limit:
            style = "bold red" if figure.missed else "dim"
            lines.append(Text(f"{figure.title}: {figure.text}; {figure.limit}", style=style))
    return Group(*lines, Text(cost_text(judgement.costs), style="dim"), "")


def _comparisons(comparisons: Sequence[Comparison]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for heading in ("difference", "interval", "margin", "p"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for one in comparisons:
        cells = (
            one.title,
            difference_text(one.difference, one.unit),
            range_text(one.interval, one.unit),
            size_text(one.margin, one.unit),
            probability(one.adjusted_p).removeprefix("p = ").removeprefix("p "),
        )
        table.add_row(*(Text(cell) for cell in cells), Text(one.outcome, style=_COLORS[one.outcome]))
    return table


def _matrix(panel: MatrixPanel, columns: Sequence[str]) -> Table:
    """True labels down, predicted labels across; the diagonal, where both agree, is bold."""
    metrics, table = panel.metrics, _plain_table()
    table.add_column("", max_width=_LABEL_CHARACTERS)
    for column in columns:
        table.add_column(
            Text(column), justify="right", min_width=len(f"{metrics.items:,}"), max_width=_LABEL_CHARACTERS
        )
    for row, label in enumerate(metrics.labels):
        counts = metrics.confusion[row][: len(columns)]
        table.add_row(
            Text(label),
            *(
                Text(f"{count:,}", style="bold green" if row == place else "dim" if count == 0 else "")
                for place, count in enumerate(counts)
            ),
        )
    return table


def _confusions(panel: MatrixPanel, columns: Sequence[str]) -> RenderableType:
    table = _plain_table()
    for heading in ("true label", "predicted"):
        table.add_column(heading)
    table.add_column("items", justify="right")
    rows = zip(panel.metrics.labels, panel.metrics.confusion, strict=True)
    wrong = [
        (count, label, column)
        for label, counts in rows
        for column, count in zip(columns, counts, strict=False)
        if column != label and count
    ]
    for count, label, column in sorted(wrong, key=lambda one: -one[0])[:_MOST_CONFUSIONS]:
        names = (shortened(name, _LABEL_CHARACTERS) for name in (label, column))
        table.add_row(*map(Text, names), Text(f"{count:,}"))
    return Group(_heading(panel), table, "")


def _heading(panel: MatrixPanel) -> Text:
    return Text.assemble((panel.title, "bold"), f"\naccuracy {percent(panel.metrics.accuracy)}")


def _plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
