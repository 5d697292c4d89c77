"""A judgement for the terminal: values that `console.result` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgetune.judging.comparison import Comparison, Outcome
from edgetune.judging.confusion import Panel, shown_columns
from edgetune.judging.gate import NO_VERDICT, Verdict
from edgetune.judging.judgement import Judgement
from edgetune.judging.metrics_table import metrics_headings, metrics_rows
from edgetune.judging.report.validity import cost_text, judge_figures
from edgetune.judging.wording import difference_text, percent, probability, range_text, size_text
from edgetune.visible_text import visible

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


def render_matrices(panels: Sequence[Panel]) -> RenderableType:
    """Confusion matrices next to each other, below each other where the terminal is too narrow. At least one panel."""
    columns = shown_columns(panels)
    matrices = Columns([_matrix(panel, columns) for panel in panels], padding=(0, 3))
    return Group(matrices, Text("Down: the true label. Across: what was predicted.", style="dim"), "")


def render_metrics(judgement: Judgement) -> RenderableType:
    """The table of metrics: baseline, candidate and the difference, as far as there are."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    heading, *columns = metrics_headings(judgement)
    table.add_column(heading)
    for column in columns:
        table.add_column(column, justify="right")
    for row in metrics_rows(judgement):
        table.add_row(*(Text(cell) for cell in row))
    return table


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
    """Who judged, whether that can be trusted, and what it took. Only where there was a judge (`was_judged`)."""
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


def _matrix(panel: Panel, columns: Sequence[str]) -> RenderableType:
    """True labels down, predicted labels across; the diagonal, where both agree, is bold."""
    metrics = panel.metrics
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("")
    for column in columns:
        table.add_column(Text(column), justify="right")
    for row, label in enumerate(metrics.labels):
        counts = metrics.confusion[row][: len(columns)]
        table.add_row(
            Text(label),
            *(
                Text(str(count), style="bold green" if row == place else "dim" if count == 0 else "")
                for place, count in enumerate(counts)
            ),
        )
    heading = Text.assemble((panel.title, "bold"), f"\naccuracy {percent(metrics.accuracy)}")
    return Group(heading, table, "")
